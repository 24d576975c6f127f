"""Numbers that several modules of tcp/ share.  Plain Python: a compiled module takes a typed copy of each it uses."""

from __future__ import annotations

TCP_MSS_DEFAULT = 536  # RFC 9293, 3.7.1
TCP_TIMEOUT_FALLBACK = 3_000_000  # RFC 6298, 5.7 (us)
TCP_TIMEOUT_MIN = 2_000  # two ticks of 1 ms (us)
TCP_RTO_MIN = 200_000  # the base of the models of tcp_retries1 and tcp_retries2 (us)
TCP_INFINITE_SSTHRESH = 0x7FFFFFFF
TCP_TIMEWAIT_LEN = 60_000_000  # 60 s, not configurable (us)
TCP_ATO_MIN = 40  # HZ / 25 (ms)
TCP_DELACK_MAX = 200  # HZ / 5 (ms)
TCP_MAX_QUICKACKS = 16

# net.net_event: what happened to a socket
EV_STATE = 1
EV_IN = 2
EV_OUT = 4
EV_ERR = 8
# An event as Host.events() reports it is handle << EVENT_BITS | EV_*; a handle is the socket's row with its generation.
EVENT_BITS = 8

# Kinds of timer: what our wheel nodes carry
TIMER_RTX = 1
TIMER_DELACK = 2
TIMER_KEEP = 3
TIMER_TW = 4
TIMER_REQSK = 5

# TcpCold.ca_state (TCP_CA_*)
CA_OPEN = 0
CA_DISORDER = 1
CA_CWR = 2
CA_RECOVERY = 3
CA_LOSS = 4

# Segment.marks (TCPCB_*)
SACKED = 1  # the peer has it, out of order
RETRANS = 2  # a retransmission is in flight
LOST = 4

# Answers of the functions that process a segment
RCV_DONE = 0
RCV_RESET = 1  # the caller sends a RST for it

# Answers of minisocks.tcp_timewait_state_process
TW_SUCCESS = 0
TW_RST = 1
TW_ACK = 2
TW_SYN = 3

# What an ACK did (tcp_input.c: FLAG_*)
ACK_DATA = 1 << 0
ACK_WIN_UPDATE = 1 << 1
ACK_DATA_ACKED = 1 << 2
ACK_RETRANS_ACKED = 1 << 3
ACK_SYN_ACKED = 1 << 4
ACK_DATA_SACKED = 1 << 5
ACK_ECE = 1 << 6
ACK_UNA_ADVANCED = 1 << 8
ACK_DSACK = 1 << 9
ACK_SET_TIMER = 1 << 10
ACK_NOT_DUP = ACK_DATA | ACK_WIN_UPDATE | ACK_DATA_ACKED | ACK_SYN_ACKED

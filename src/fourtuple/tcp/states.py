"""The states of a TCP socket, by the kernel's numbers (include/net/tcp_states.h), and its drawing as a table.

Here: names, numbers, what close() does in each state.  Not here: who moves a socket from one state to another.
"""

from __future__ import annotations

TCP_ESTABLISHED = 1
TCP_SYN_SENT = 2
TCP_SYN_RECV = 3
TCP_FIN_WAIT1 = 4
TCP_FIN_WAIT2 = 5
TCP_TIME_WAIT = 6
TCP_CLOSE = 7
TCP_CLOSE_WAIT = 8
TCP_LAST_ACK = 9
TCP_LISTEN = 10
TCP_CLOSING = 11

# Sets of states: bit n stands for state n (TCPF_*).
TCPF_ESTABLISHED = 1 << TCP_ESTABLISHED
TCPF_SYN_SENT = 1 << TCP_SYN_SENT
TCPF_SYN_RECV = 1 << TCP_SYN_RECV
TCPF_FIN_WAIT1 = 1 << TCP_FIN_WAIT1
TCPF_FIN_WAIT2 = 1 << TCP_FIN_WAIT2
TCPF_TIME_WAIT = 1 << TCP_TIME_WAIT
TCPF_CLOSE = 1 << TCP_CLOSE
TCPF_CLOSE_WAIT = 1 << TCP_CLOSE_WAIT
TCPF_LAST_ACK = 1 << TCP_LAST_ACK
TCPF_LISTEN = 1 << TCP_LISTEN
TCPF_CLOSING = 1 << TCP_CLOSING

STATE_NAMES = {
    TCP_ESTABLISHED: "ESTABLISHED",
    TCP_SYN_SENT: "SYN_SENT",
    TCP_SYN_RECV: "SYN_RECV",
    TCP_FIN_WAIT1: "FIN_WAIT1",
    TCP_FIN_WAIT2: "FIN_WAIT2",
    TCP_TIME_WAIT: "TIME_WAIT",
    TCP_CLOSE: "CLOSE",
    TCP_CLOSE_WAIT: "CLOSE_WAIT",
    TCP_LAST_ACK: "LAST_ACK",
    TCP_LISTEN: "LISTEN",
    TCP_CLOSING: "CLOSING",
}

# State -> (next state, send a FIN) when the application closes or shuts down its sending side (tcp.c: new_state).
ON_CLOSE = {
    TCP_ESTABLISHED: (TCP_FIN_WAIT1, True),
    TCP_SYN_SENT: (TCP_CLOSE, False),
    TCP_SYN_RECV: (TCP_FIN_WAIT1, True),
    TCP_FIN_WAIT1: (TCP_FIN_WAIT1, False),
    TCP_FIN_WAIT2: (TCP_FIN_WAIT2, False),
    TCP_CLOSE: (TCP_CLOSE, False),
    TCP_CLOSE_WAIT: (TCP_LAST_ACK, True),
    TCP_LAST_ACK: (TCP_LAST_ACK, False),
    TCP_LISTEN: (TCP_CLOSE, False),
    TCP_CLOSING: (TCP_CLOSING, False),
}

# What moves a connection: (state, event) -> state.  docs/ draws it, tests walk it.
TRANSITIONS = {
    (TCP_CLOSE, "connect"): TCP_SYN_SENT,
    (TCP_CLOSE, "listen"): TCP_LISTEN,
    (TCP_SYN_SENT, "SYN-ACK"): TCP_ESTABLISHED,
    (TCP_SYN_SENT, "SYN"): TCP_SYN_RECV,
    (TCP_SYN_SENT, "RST"): TCP_CLOSE,
    (TCP_SYN_SENT, "timeout"): TCP_CLOSE,
    (TCP_SYN_SENT, "close"): TCP_CLOSE,
    (TCP_SYN_RECV, "ACK"): TCP_ESTABLISHED,
    (TCP_SYN_RECV, "RST"): TCP_CLOSE,
    (TCP_SYN_RECV, "close"): TCP_FIN_WAIT1,
    (TCP_ESTABLISHED, "FIN"): TCP_CLOSE_WAIT,
    (TCP_ESTABLISHED, "close"): TCP_FIN_WAIT1,
    (TCP_FIN_WAIT1, "ACK of FIN"): TCP_FIN_WAIT2,
    (TCP_FIN_WAIT1, "FIN"): TCP_CLOSING,
    (TCP_FIN_WAIT1, "FIN + ACK of FIN"): TCP_TIME_WAIT,
    (TCP_FIN_WAIT2, "FIN"): TCP_TIME_WAIT,
    (TCP_CLOSING, "ACK of FIN"): TCP_TIME_WAIT,
    (TCP_CLOSE_WAIT, "close"): TCP_LAST_ACK,
    (TCP_LAST_ACK, "ACK of FIN"): TCP_CLOSE,
    (TCP_TIME_WAIT, "60 s"): TCP_CLOSE,
}

"""Net: one network namespace as TCP sees it, what a connection keeps while data moves, and the arming of its timers.

Lives here: the object that every function of tcp/ takes first, TcpCold and Segment, the dirty list of events, and
include/net/inet_connection_sock.h: setting and clearing a connection's timers.  Not here: what a timer does
(timer.py).

Rules
1. `now_us` is the time of the call that runs; a timer runs at its own due time.
2. `cold[sk]` exists only while something is queued, in flight or out of order, while the error queue is filled, and for
   a listener; the HAS_COLD flag says so without a look-up.
"""

from __future__ import annotations

import array
from collections import deque
from typing import Any

from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.secrets import BootSecrets
from fourtuple.ip.netns import IpNet
from fourtuple.kernel_profile import KernelProfile
from fourtuple.sysctl import Sysctls
from fourtuple.tcp.constants import (
    CA_OPEN,
    TIMER_DELACK,
    TIMER_KEEP,
    TIMER_RTX,
)
from fourtuple.tcp.constants import EV_ERR as EV_ERR
from fourtuple.tcp.constants import EV_IN as EV_IN
from fourtuple.tcp.constants import EV_OUT as EV_OUT
from fourtuple.tcp.constants import EV_STATE as EV_STATE
from fourtuple.tcp.sock import HAS_COLD, LOSS_PROBE, PROBE0, TcpSockTable
from fourtuple.wheel import TimerWheel, wheel_arm, wheel_cancel
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.tcp import TcpHeader

_M32 = 0xFFFFFFFF
_LISTED = 0x80  # in `pending`: the dirty list names the row


class Segment:
    """A range of sequence numbers to send or sent: at most one MSS of payload (kernel: sk_buff in the write queue)."""

    __slots__ = ("end_seq", "flags", "length", "marks", "payload", "rexmits", "sent_ms", "sent_us", "seq")

    payload: Any

    def __init__(self, seq: int, payload: bytes | memoryview, flags: int) -> None:
        self.seq = seq
        self.length = len(payload)
        self.end_seq = (seq + len(payload) + (flags & 1)) & _M32
        self.flags = flags
        self.payload = payload
        self.marks = 0
        self.rexmits = 0
        self.sent_ms = 0
        self.sent_us = 0


class TcpCold:
    """The queues of a connection, and the state of a loss recovery."""

    __slots__ = (
        "ca_state", "dsack", "dsack_end", "dsack_start", "dup_acks", "errq", "fin_queued", "first_sackt", "high_seq",
        "is_cwnd_limited", "listener", "lost_out", "max_packets_out", "max_packets_seq", "ofo", "ofo_bytes",
        "prior_cwnd", "prior_ssthresh", "probes_tstamp", "pushed_seq", "rcvq", "rcvq_bytes", "rcvq_sizes",
        "recent_sacks", "retrans_out", "rmem", "rtx", "sacked_out", "sendq", "sendq_bytes", "snd_sml", "tlp_high_seq",
        "tlp_retrans", "undo_marker", "undo_retrans", "write_pending",
    )  # fmt: skip

    rtx: Any  # deque[Segment]: sent, not acknowledged
    sendq: Any  # deque[Segment]: not yet sent
    rcvq: Any  # deque[bytes]: in order, not yet read
    rcvq_sizes: Any  # deque[int]: skb_truesize of each; rmem is their sum and that of ofo
    errq: Any  # deque[dict[str, object]]
    ofo: list[tuple[int, int, bytes, bool]]  # (seq, end_seq, payload, fin) in sequence order, disjoint
    recent_sacks: list[tuple[int, int]]  # blocks to report, the newest first
    listener: Any

    def __init__(self, snd_una: int) -> None:
        self.rtx = deque()
        self.sendq = deque()
        self.rcvq = deque()
        self.rcvq_sizes = deque()
        self.errq = deque()
        self.ofo = []
        self.recent_sacks = []
        self.listener = None
        self.write_pending = 0
        self.rcvq_bytes = 0
        self.rmem = 0
        self.ofo_bytes = 0
        self.sendq_bytes = 0
        self.ca_state = CA_OPEN
        self.sacked_out = 0
        self.first_sackt = 0  # while an ACK is processed: when the first segment that it SACKs was sent
        self.lost_out = 0
        self.retrans_out = 0
        self.dup_acks = 0
        self.high_seq = snd_una
        self.undo_marker = 0
        self.undo_retrans = 0
        self.prior_ssthresh = 0
        self.prior_cwnd = 0
        self.probes_tstamp = 0  # when probing of a closed window began, ms; 0: it has not
        self.snd_sml = snd_una
        self.pushed_seq = snd_una
        self.max_packets_out = 0
        self.max_packets_seq = snd_una
        self.tlp_high_seq = 0
        self.tlp_retrans = False
        self.is_cwnd_limited = False
        self.fin_queued = False
        self.dsack = False
        self.dsack_start = 0
        self.dsack_end = 0


class Net(IpNet):
    """One network namespace: tables, routes, sysctls, counters, packets out, events, time."""

    __slots__ = (
        "challenge_count", "challenge_stamp", "cold", "counts_syns", "dirty", "dirty_count", "first_window",
        "first_window_max", "h", "init_cwnd", "initial_rto", "oow_stamps", "orphans", "requests", "reqsk_serial",
        "rx_buf", "rx_th", "sks", "syn_budget_base", "ts_offsets", "tx_th", "uid", "user_timeout_of_syn", "wheel",
    )  # fmt: skip

    cold: dict[int, TcpCold]
    requests: dict[Any, Any]
    dirty: memoryview
    oow_stamps: dict[int, int]

    def __init__(
        self, sks: TcpSockTable, h: InetHashinfo, fib: object, sysctl: Sysctls, secrets: BootSecrets, wheel: TimerWheel
    ) -> None:
        super().__init__(fib, sysctl, secrets)
        self.sks = sks
        self.h = h
        self.wheel = wheel
        self.cold = {}
        self.uid = 0
        self.dirty = memoryview(array.array("I", bytes(4 * (sks.max_sockets + 1))))
        self.dirty_count = 0
        self.tx_th = TcpHeader()
        self.rx_th = TcpHeader()
        self.rx_buf = PacketBuffer(64)
        self.orphans = 0
        self.reqsk_serial = 0
        self.requests = {}
        self._take_over(sysctl.profile)
        self.challenge_count = 0
        self.challenge_stamp = 0
        self.oow_stamps = {}

    def _take_over(self, profile: KernelProfile) -> None:
        """What TCP reads of the kernel's version."""
        self.initial_rto = profile.initial_rto_us
        self.syn_budget_base = profile.syn_budget_base_us
        self.counts_syns = profile.counts_syns
        self.user_timeout_of_syn = profile.user_timeout_of_syn
        self.init_cwnd = profile.init_cwnd
        self.first_window = profile.first_window_segments
        self.first_window_max = profile.first_window_max
        self.ts_offsets = profile.timestamp_offsets


def net_event(net: Net, sk: int, bits: int) -> None:
    """Note that something happened to `sk`; its owner hears of it once, however often."""
    if net.sks.pending[sk] & _LISTED == 0:
        net.dirty[net.dirty_count] = sk
        net.dirty_count += 1
    net.sks.pending[sk] |= bits | _LISTED


def net_events(net: Net) -> list[tuple[int, int]]:
    """Take the dirty list: (row, EV_* bits), each row once; a row that was freed since has nothing to say."""
    found = []
    for i in range(net.dirty_count):
        sk = net.dirty[i]
        bits = net.sks.pending[sk] ^ _LISTED
        net.sks.pending[sk] = 0
        if bits:
            found.append((sk, bits))
    net.dirty_count = 0
    return found


def tcp_jiffies(net: Net) -> int:
    """The millisecond clock (tcp_jiffies32 at HZ 1000, tcp_time_stamp_ms)."""
    return (net.now_us // 1000) & _M32


def cold_of(net: Net, sk: int) -> TcpCold | None:
    """The queues of `sk`, or None."""
    if net.sks.flags[sk] & HAS_COLD == 0:
        return None
    return net.cold[sk]


def cold_get(net: Net, sk: int) -> TcpCold:
    """The queues of `sk`, made if there are none."""
    if net.sks.flags[sk] & HAS_COLD:
        return net.cold[sk]
    cold = TcpCold(net.sks.snd_una[sk])
    net.cold[sk] = cold
    net.sks.flags[sk] |= HAS_COLD
    return cold


def cold_trim(net: Net, sk: int) -> None:
    """Drop the queues when all are empty and no recovery runs."""
    if net.sks.flags[sk] & HAS_COLD == 0:
        return
    cold = net.cold[sk]
    if cold.rtx or cold.sendq or cold.rcvq or cold.ofo or cold.errq or cold.write_pending:
        return
    if cold.listener is None and cold.ca_state == CA_OPEN and not cold.tlp_high_seq:
        cold_drop(net, sk)


def cold_drop(net: Net, sk: int) -> None:
    """Drop the queues with all that is in them."""
    if net.sks.flags[sk] & HAS_COLD:
        del net.cold[sk]
        net.sks.flags[sk] &= ~HAS_COLD & _M32


def tcp_reset_xmit_timer(net: Net, sk: int, delay_us: int) -> None:
    """(Re)arm the retransmission timer to fire `delay_us` from now."""
    due = net.now_us + delay_us
    if net.sks.timer_rtx[sk]:
        wheel_cancel(net.wheel, net.sks.timer_rtx[sk])
        net.sks.flags[sk] &= ~(PROBE0 | LOSS_PROBE) & _M32
    net.sks.timer_rtx[sk] = wheel_arm(net.wheel, due, sk, TIMER_RTX)


def tcp_reset_probe0_timer(net: Net, sk: int, delay_us: int) -> None:
    """(Re)arm the same timer as a zero-window probe."""
    tcp_reset_xmit_timer(net, sk, delay_us)
    net.sks.flags[sk] |= PROBE0


def tcp_reset_delack_timer(net: Net, sk: int, due_us: int) -> None:
    """Arm the delayed-ACK timer for the absolute time `due_us`."""
    if net.sks.timer_delack[sk]:
        wheel_cancel(net.wheel, net.sks.timer_delack[sk])
    net.sks.timer_delack[sk] = wheel_arm(net.wheel, due_us, sk, TIMER_DELACK)


def tcp_reset_keepalive_timer(net: Net, sk: int, delay_us: int) -> None:
    """(Re)arm the keepalive timer, which also times an orphan in FIN_WAIT2."""
    if net.sks.timer_keep[sk]:
        wheel_cancel(net.wheel, net.sks.timer_keep[sk])
    net.sks.timer_keep[sk] = wheel_arm(net.wheel, net.now_us + delay_us, sk, TIMER_KEEP)


def inet_csk_clear_xmit_timer(net: Net, sk: int) -> None:
    """Disarm the retransmission timer."""
    if net.sks.timer_rtx[sk]:
        wheel_cancel(net.wheel, net.sks.timer_rtx[sk])
        net.sks.timer_rtx[sk] = 0
        net.sks.flags[sk] &= ~(PROBE0 | LOSS_PROBE) & _M32


def inet_csk_clear_delack_timer(net: Net, sk: int) -> None:
    """Disarm the delayed-ACK timer."""
    if net.sks.timer_delack[sk]:
        wheel_cancel(net.wheel, net.sks.timer_delack[sk])
        net.sks.timer_delack[sk] = 0


def inet_csk_delete_keepalive_timer(net: Net, sk: int) -> None:
    """Disarm the keepalive timer."""
    if net.sks.timer_keep[sk]:
        wheel_cancel(net.wheel, net.sks.timer_keep[sk])
        net.sks.timer_keep[sk] = 0


def tcp_clear_xmit_timers(net: Net, sk: int) -> None:
    """Disarm all timers of a connection that ends."""
    inet_csk_clear_xmit_timer(net, sk)
    inet_csk_clear_delack_timer(net, sk)
    inet_csk_delete_keepalive_timer(net, sk)

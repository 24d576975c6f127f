"""TcpSockTable: TCP's own columns of a connection, beside those of inet/ (kernel: tcp_sock, inet_connection_sock).

Lives here: the columns, their bits, how a row is given back.  Not here: what else a connection has while data moves
(net.TcpCold).  A column that is 0 means its default wherever a comment says so: a page that nobody wrote costs nothing.

    ss_state             SS_* of sock/af_inet; tcp/ only reads it
    err err_soft         positive errno, at most 255
    retransmits backoff  of the timer that runs now; total_retrans, total_rto over the life of the connection
    pending              EV_* bits not yet told to the owner (net_event)
    quick ato            ACKs to send at once; delayed-ACK timeout in ms
    wscales              send scale << 4 | receive scale; optbits: what the handshake agreed on
    dst dst_gen pmtu     interned route, generation of the tables it is from; path MTU last synced to
    srtt                 smoothed round trip, us * 8; mdev mdev_max rttvar us; rto us
    retrans_stamp        ms clock of the SYN, later of the first retransmission
    lsndtime lrcvtime rcv_tstamp   ms clock of the last data sent, data received, ACK received
    ssthresh             0: infinite
    scaling_ratio        window that 256 bytes of receive buffer are worth, 0: 128
    rcvbuf sndbuf        0: the option or the sysctl decides
    rcvq_*               receive buffer tuning: bytes read since rcvq_seq at rcvq_time (ms)
    timer_*              wheel node, 0: not armed
"""

from __future__ import annotations

from fourtuple.columns import Code
from fourtuple.inet.sock_table import SockTable, sk_free_inet

# optbits
TS_OK = 1 << 0
SACK_OK = 1 << 1
WSCALE_OK = 1 << 2
ECN_OK = 1 << 3
ECN_SEEN = 1 << 4

# flags: TCP's bits above those of inet/flags.py
PROBE0 = 1 << 20  # timer_rtx is a zero-window probe (ICSK_TIME_PROBE0)
LOSS_PROBE = 1 << 21  # timer_rtx is a tail loss probe
ACK_SCHED = 1 << 22  # an ACK is owed
ACK_TIMER = 1 << 23  # and its timer runs
ECN_SYN = 1 << 24  # the SYN asked for ECN
UNDO = 1 << 25  # retransmitted during the handshake, not known to be spurious
DEMAND_CWR = 1 << 26  # a CE mark was received: ACKs carry ECE until CWR comes
QUEUE_CWR = 1 << 27  # the next new data carries CWR
ACK_PUSHED = 1 << 28  # a PSH was received
HAS_COLD = 1 << 30  # net.cold has an entry
ACK_PUSHED2 = 1 << 31  # two small segments were
ACK_NOW = 1 << 29  # the next ACK must not be delayed

SS_FREE = 0
SS_UNCONNECTED = 1
SS_CONNECTING = 2
SS_CONNECTED = 3
SS_DISCONNECTING = 4

RCV_SHUTDOWN = 1
SEND_SHUTDOWN = 2
SHUTDOWN_MASK = 3

TCP_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("ss_state", "B"), ("shutdown", "B"), ("err", "B"), ("err_soft", "B"), ("retransmits", "B"),
    ("backoff", "B"), ("pending", "B"), ("quick", "B"), ("scaling_ratio", "B"), ("probes", "B"),
    ("snd_nxt", "I"), ("snd_una", "I"), ("rcv_nxt", "I"), ("copied_seq", "I"), ("rcv_wup", "I"),
    ("snd_wnd", "I"), ("max_window", "I"), ("snd_wl1", "I"), ("rcv_wnd", "I"), ("wscales", "B"),
    ("optbits", "B"), ("mss_clamp", "H"), ("advmss", "H"), ("mss_cache", "H"), ("dst", "H"), ("dst_gen", "H"),
    ("ip_id", "H"), ("total_retrans", "H"), ("total_rto", "H"), ("rcv_mss", "H"), ("ato", "H"),
    ("cwnd_cnt", "H"), ("ts_offset", "I"), ("srtt", "I"), ("mdev", "I"), ("mdev_max", "I"), ("rttvar", "I"),
    ("rtt_seq", "I"), ("rto", "I"), ("retrans_stamp", "I"), ("lsndtime", "I"), ("lrcvtime", "I"),
    ("rcv_tstamp", "I"), ("pmtu", "I"), ("snd_cwnd", "I"), ("ssthresh", "I"), ("rcv_ssthresh", "I"),
    ("window_clamp", "I"), ("rcvbuf", "I"), ("sndbuf", "I"), ("rcvq_seq", "I"), ("rcvq_time", "I"),
    ("rcvq_space", "I"), ("timer_rtx", "I"), ("timer_delack", "I"), ("timer_keep", "I"),
)  # fmt: skip


class TcpSockTable(SockTable):
    """Rows 1..max_sockets with the columns of inet/ and TCP_COLUMNS."""

    __slots__ = (
        "advmss", "ato", "backoff", "copied_seq", "cwnd_cnt", "dst", "dst_gen", "err", "err_soft", "ip_id",
        "lrcvtime", "lsndtime", "max_window", "mdev", "mdev_max", "mss_cache", "mss_clamp", "optbits", "pending",
        "pmtu", "probes", "quick", "rcv_mss", "rcv_nxt", "rcv_ssthresh", "rcv_tstamp", "rcv_wnd", "rcv_wup",
        "rcvbuf", "rcvq_seq", "rcvq_space", "rcvq_time", "retrans_stamp", "retransmits", "rto", "rtt_seq", "rttvar",
        "scaling_ratio", "shutdown", "snd_cwnd", "snd_nxt", "snd_una", "snd_wl1", "snd_wnd", "sndbuf", "srtt",
        "ss_state", "ssthresh", "timer_delack", "timer_keep", "timer_rtx", "total_retrans", "total_rto",
        "ts_offset", "window_clamp", "wscales",
    )  # fmt: skip

    def __init__(self, max_sockets: int) -> None:
        super().__init__(max_sockets, TCP_COLUMNS)
        self._attach_sequence()
        self._attach_time()

    def _attach_sequence(self) -> None:
        columns = self.columns
        self.ss_state = columns["ss_state"]
        self.shutdown = columns["shutdown"]
        self.err = columns["err"]
        self.err_soft = columns["err_soft"]
        self.retransmits = columns["retransmits"]
        self.backoff = columns["backoff"]
        self.pending = columns["pending"]
        self.quick = columns["quick"]
        self.scaling_ratio = columns["scaling_ratio"]
        self.probes = columns["probes"]
        self.snd_nxt = columns["snd_nxt"]
        self.snd_una = columns["snd_una"]
        self.rcv_nxt = columns["rcv_nxt"]
        self.copied_seq = columns["copied_seq"]
        self.rcv_wup = columns["rcv_wup"]
        self.snd_wnd = columns["snd_wnd"]
        self.max_window = columns["max_window"]
        self.snd_wl1 = columns["snd_wl1"]
        self.rcv_wnd = columns["rcv_wnd"]
        self.wscales = columns["wscales"]
        self.optbits = columns["optbits"]
        self.mss_clamp = columns["mss_clamp"]
        self.advmss = columns["advmss"]
        self.mss_cache = columns["mss_cache"]
        self.dst = columns["dst"]
        self.dst_gen = columns["dst_gen"]
        self.ip_id = columns["ip_id"]
        self.total_retrans = columns["total_retrans"]
        self.total_rto = columns["total_rto"]
        self.rcv_mss = columns["rcv_mss"]
        self.ato = columns["ato"]
        self.cwnd_cnt = columns["cwnd_cnt"]

    def _attach_time(self) -> None:
        columns = self.columns
        self.ts_offset = columns["ts_offset"]
        self.srtt = columns["srtt"]
        self.mdev = columns["mdev"]
        self.mdev_max = columns["mdev_max"]
        self.rttvar = columns["rttvar"]
        self.rtt_seq = columns["rtt_seq"]
        self.rto = columns["rto"]
        self.retrans_stamp = columns["retrans_stamp"]
        self.lsndtime = columns["lsndtime"]
        self.lrcvtime = columns["lrcvtime"]
        self.rcv_tstamp = columns["rcv_tstamp"]
        self.pmtu = columns["pmtu"]
        self.snd_cwnd = columns["snd_cwnd"]
        self.ssthresh = columns["ssthresh"]
        self.rcv_ssthresh = columns["rcv_ssthresh"]
        self.window_clamp = columns["window_clamp"]
        self.rcvbuf = columns["rcvbuf"]
        self.sndbuf = columns["sndbuf"]
        self.rcvq_seq = columns["rcvq_seq"]
        self.rcvq_time = columns["rcvq_time"]
        self.rcvq_space = columns["rcvq_space"]
        self.timer_rtx = columns["timer_rtx"]
        self.timer_delack = columns["timer_delack"]
        self.timer_keep = columns["timer_keep"]


def last_ack_time(table: TcpSockTable, sk: int) -> int:
    """When the last ACK came (jiffies); before the first one after the handshake that is the handshake's own time."""
    return table.rcv_tstamp[sk] or table.lrcvtime[sk]


def sk_free(table: TcpSockTable, sk: int) -> None:
    """Give row sk back, every column 0.  The caller has left all tables and cancelled the timers."""
    table.ss_state[sk] = 0
    table.shutdown[sk] = 0
    table.err[sk] = 0
    table.err_soft[sk] = 0
    table.retransmits[sk] = 0
    table.backoff[sk] = 0
    table.pending[sk] &= 0x80  # the dirty list still names the row (net_event), the next owner goes by that
    table.quick[sk] = 0
    table.scaling_ratio[sk] = 0
    table.probes[sk] = 0
    table.snd_nxt[sk] = 0
    table.snd_una[sk] = 0
    table.rcv_nxt[sk] = 0
    table.copied_seq[sk] = 0
    table.rcv_wup[sk] = 0
    table.snd_wnd[sk] = 0
    table.max_window[sk] = 0
    table.snd_wl1[sk] = 0
    table.rcv_wnd[sk] = 0
    table.wscales[sk] = 0
    table.optbits[sk] = 0
    table.mss_clamp[sk] = 0
    table.advmss[sk] = 0
    table.mss_cache[sk] = 0
    table.dst[sk] = 0
    table.dst_gen[sk] = 0
    table.ip_id[sk] = 0
    table.total_retrans[sk] = 0
    table.total_rto[sk] = 0
    table.rcv_mss[sk] = 0
    table.ato[sk] = 0
    table.cwnd_cnt[sk] = 0
    _zero_time(table, sk)
    sk_free_inet(table, sk)


def _zero_time(table: TcpSockTable, sk: int) -> None:
    table.ts_offset[sk] = 0
    table.srtt[sk] = 0
    table.mdev[sk] = 0
    table.mdev_max[sk] = 0
    table.rttvar[sk] = 0
    table.rtt_seq[sk] = 0
    table.rto[sk] = 0
    table.retrans_stamp[sk] = 0
    table.lsndtime[sk] = 0
    table.lrcvtime[sk] = 0
    table.rcv_tstamp[sk] = 0
    table.pmtu[sk] = 0
    table.snd_cwnd[sk] = 0
    table.ssthresh[sk] = 0
    table.rcv_ssthresh[sk] = 0
    table.window_clamp[sk] = 0
    table.rcvbuf[sk] = 0
    table.sndbuf[sk] = 0
    table.rcvq_seq[sk] = 0
    table.rcvq_time[sk] = 0
    table.rcvq_space[sk] = 0
    table.timer_rtx[sk] = 0
    table.timer_delack[sk] = 0
    table.timer_keep[sk] = 0

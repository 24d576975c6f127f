"""TIME_WAIT (net/ipv4/tcp_minisocks.c): how a socket becomes a row of the TimeWaitTable, and what such a row answers.

Not here: requests of a listener (listen.py), reuse by connect() (inet/hashtables.tcp_twsk_unique).
"""

from __future__ import annotations

from fourtuple.inet.timewait import tw_alloc, tw_fifo_append, tw_fifo_remove
from fourtuple.inet.timewait_sock import inet_twsk_enter_time_wait, inet_twsk_hashdance, inet_twsk_kill
from fourtuple.ip.output import ip_build, ip_local_out, ip_queue_of
from fourtuple.kernel_map import FN_TCP_TIME_WAIT, FN_TCP_TIMEWAIT_STATE_PROCESS
from fourtuple.tcp.constants import (
    TCP_TIMEWAIT_LEN,
    TIMER_TW,
    TW_ACK,
    TW_RST,
    TW_SUCCESS,
    TW_SYN,
)
from fourtuple.tcp.net import (
    Net,
    tcp_jiffies,
)
from fourtuple.tcp.states import TCP_FIN_WAIT2, TCP_TIME_WAIT
from fourtuple.tcp.tcp import tcp_done
from fourtuple.tcp.window import (
    tcp_receive_window,
)
from fourtuple.trace import trace
from fourtuple.wheel import wheel_arm, wheel_cancel
from fourtuple.wire.seq import after, before
from fourtuple.wire.tcp import ACK, FIN, RST, SYN, clear_options

_M32 = 0xFFFFFFFF
_OOW = 1 << 32  # oow_stamps: keys of TIME_WAIT rows


def tcp_fin_time_us(net: Net, sk: int) -> int:
    """How long an orphan waits in FIN_WAIT2: TCP_LINGER2 or tcp_fin_timeout, at least 3.5 timeouts; -1: not at all."""
    linger2 = net.sks.option_sets[net.sks.opts[sk]].linger2_s
    if linger2 < 0:
        return -1
    least = net.sks.rto[sk] * 7 // 2
    timeout = (linger2 if linger2 else net.sysctl.tcp_fin_timeout) * 1_000_000
    return timeout if timeout > least else least


def tcp_time_wait(net: Net, sk: int, state: int, timeout_us: int) -> None:
    """Leave a TIME_WAIT (or FIN_WAIT2) row in the socket's place; none when there are tcp_max_tw_buckets (TW-12)."""
    table = net.h.tw
    sks = net.sks
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_TIME_WAIT, sk, state, timeout_us)
    row = -1
    if table.used < net.sysctl.tcp_max_tw_buckets:
        row = tw_alloc(table)
    if row < 0:
        net.mib.TcpExtTCPTimeWaitOverflow += 1
        tcp_done(net, sk)
        return
    tw = row
    table.substate[tw] = state
    table.snd_nxt[tw] = sks.snd_nxt[sk]
    table.rcv_nxt[tw] = sks.rcv_nxt[sk]
    table.rcv_wnd[tw] = tcp_receive_window(sks, sk)
    table.ts_recent[tw] = sks.ts_recent[sk]
    table.ts_recent_stamp[tw] = sks.ts_recent_stamp[sk]
    table.ts_offset[tw] = sks.ts_offset[sk]
    table.entry_ms[tw] = tcp_jiffies(net)
    table.dst[tw] = sks.dst[sk]
    table.rcv_wscale[tw] = sks.wscales[sk] & 15
    rto = sks.rto[sk]
    rto = rto * 7 // 2
    inet_twsk_hashdance(net.h, sk, tw)
    if state == TCP_TIME_WAIT:
        timeout_us = TCP_TIMEWAIT_LEN
    elif timeout_us < rto:
        timeout_us = rto
    inet_twsk_schedule(net, tw, timeout_us)
    tcp_done(net, sk)


def inet_twsk_schedule(net: Net, tw: int, delay_us: int) -> None:
    """(Re)start the row's life: the FIFO for TIME_WAIT, a timer for FIN_WAIT2."""
    inet_twsk_stop(net, tw)
    if net.h.tw.substate[tw] == TCP_TIME_WAIT:
        tw_fifo_append(net.h.tw, tw, net.now_us + delay_us)
    else:
        net.h.tw.timer[tw] = wheel_arm(net.wheel, net.now_us + delay_us, tw, TIMER_TW)


def inet_twsk_stop(net: Net, tw: int) -> None:
    """Out of FIFO and wheel."""
    tw_fifo_remove(net.h.tw, tw)
    if net.h.tw.timer[tw]:
        wheel_cancel(net.wheel, net.h.tw.timer[tw])
        net.h.tw.timer[tw] = 0


def inet_twsk_deschedule(net: Net, tw: int) -> None:
    """End the row before its time."""
    inet_twsk_stop(net, tw)
    inet_twsk_kill(net.h, tw)
    if net.oow_stamps:
        net.oow_stamps.pop(_OOW | tw, None)
    net.mib.TcpExtTWKilled += 1


def tw_timer_handler(net: Net, tw: int) -> None:
    """The row's time is over."""
    net.h.tw.timer[tw] = 0
    inet_twsk_kill(net.h, tw)
    if net.oow_stamps:
        net.oow_stamps.pop(_OOW | tw, None)
    net.mib.TcpExtTW += 1


def tcp_timewait_state_process(net: Net, tw: int) -> int:
    """What the segment in net.rx_th does to a TIME_WAIT row: TW_SUCCESS nothing more, TW_RST, TW_ACK, TW_SYN."""
    table = net.h.tw
    th = net.rx_th
    seq = th.seq
    rcv_nxt = table.rcv_nxt[tw]
    end_seq = (seq + th.payload_len + (th.flags & FIN) + (th.flags >> 1 & 1)) & _M32
    if not net.sysctl.tcp_timestamps:
        th.has_ts = 0  # what was negotiated is not known any more (tcp_parse_options without `estab`)
    paws = _paws_reject(net, tw)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_TIMEWAIT_STATE_PROCESS, tw, table.substate[tw], th.flags, seq, paws)
    if table.substate[tw] == TCP_FIN_WAIT2:
        return _fin_wait2(net, tw, end_seq, paws)
    if not paws and seq == rcv_nxt and (seq == end_seq or th.flags & RST):
        return _exact(net, tw)
    newer = after(seq, rcv_nxt)
    newer_ts = th.has_ts and table.ts_recent_stamp[tw] and before(table.ts_recent[tw], th.tsval)
    if th.flags & SYN and not th.flags & (RST | ACK) and not paws and (newer or newer_ts):
        return TW_SYN
    if paws:
        net.mib.TcpExtPAWSEstab += 1
    if th.flags & RST:
        return TW_SUCCESS
    if paws or th.flags & ACK:
        inet_twsk_schedule(net, tw, TCP_TIMEWAIT_LEN)
    return _check_oow_rate_limit(net, tw)


def _exact(net: Net, tw: int) -> int:
    """The one segment that fits: a bare ACK starts the 60 s anew, RST ends them (unless tcp_rfc1337)."""
    if net.rx_th.flags & RST and not net.sysctl.tcp_rfc1337:
        inet_twsk_deschedule(net, tw)
        return TW_SUCCESS
    if not net.rx_th.flags & RST:
        inet_twsk_schedule(net, tw, TCP_TIMEWAIT_LEN)
    _store_ts(net, tw)
    return TW_SUCCESS


def _paws_reject(net: Net, tw: int) -> bool:
    """RFC 7323, 5.3: an old timestamp, unless it is a RST or the last one is older than a minute (RST) or 24 days."""
    th = net.rx_th
    table = net.h.tw
    if not table.ts_recent_stamp[tw] or not th.has_ts:
        return False
    if not before(th.tsval, table.ts_recent[tw]):
        return False
    age = net.now_us // 1_000_000 - table.ts_recent_stamp[tw]
    if age >= 24 * 24 * 3600:
        return False
    return not (th.flags & RST and age > 60)


def _store_ts(net: Net, tw: int) -> None:
    if net.rx_th.has_ts and net.h.tw.ts_recent_stamp[tw]:
        net.h.tw.ts_recent[tw] = net.rx_th.tsval
        net.h.tw.ts_recent_stamp[tw] = net.now_us // 1_000_000 or 1


def _fin_wait2(net: Net, tw: int, end_seq: int, paws: bool) -> int:
    """The substate FIN_WAIT2: the peer's FIN makes it a TIME_WAIT, data is answered by RST."""
    table = net.h.tw
    th = net.rx_th
    rcv_nxt = table.rcv_nxt[tw]
    limit = (rcv_nxt + table.rcv_wnd[tw]) & _M32
    if paws or not _in_window(th.seq, end_seq, rcv_nxt, limit):
        return _check_oow_rate_limit(net, tw)
    if th.flags & RST:
        inet_twsk_deschedule(net, tw)
        return TW_SUCCESS
    if th.flags & SYN and not before(th.seq, rcv_nxt):
        return TW_RST
    beyond = (end_seq - rcv_nxt) & _M32
    if not th.flags & ACK or beyond == 0 or beyond >> 31 or end_seq == th.seq:
        return TW_SUCCESS
    if not th.flags & FIN or beyond != 1:
        return TW_RST
    table.rcv_nxt[tw] = end_seq
    _store_ts(net, tw)
    inet_twsk_stop(net, tw)
    # A FIN without a timestamp leaves the row as old as it was (tcp_minisocks.c, 6.14).
    inet_twsk_enter_time_wait(net.h, tw, tcp_jiffies(net) if th.has_ts else table.entry_ms[tw])
    inet_twsk_schedule(net, tw, TCP_TIMEWAIT_LEN)
    return TW_ACK


def _in_window(seq: int, end_seq: int, low: int, high: int) -> bool:
    """tcp_in_window: the segment begins at the window, overlaps it, or is empty at its right edge."""
    if seq == low:
        return True
    if after(end_seq, low) and before(seq, high):
        return True
    return seq == high and seq == end_seq


def _check_oow_rate_limit(net: Net, tw: int) -> int:
    """Answer an out-of-window segment, at most every tcp_invalid_ratelimit ms unless it holds data or FIN."""
    if net.rx_th.payload_len or net.rx_th.flags & FIN:
        return TW_ACK
    key = _OOW | tw
    last = net.oow_stamps.get(key)
    now = tcp_jiffies(net)
    if last is not None and (now - last) & _M32 < net.sysctl.tcp_invalid_ratelimit:
        net.mib.TcpExtTCPACKSkippedTimeWait += 1
        return TW_SUCCESS
    net.oow_stamps[key] = now
    return TW_ACK


def tcp_v4_timewait_ack(net: Net, tw: int) -> None:
    """ACK in the name of a TIME_WAIT row."""
    table = net.h.tw
    th = net.tx_th
    clear_options(th)
    th.sport = table.num[tw]
    th.dport = table.dport[tw]
    th.seq = table.snd_nxt[tw]
    th.ack = table.rcv_nxt[tw]
    th.flags = ACK
    th.window = min(table.rcv_wnd[tw] >> table.rcv_wscale[tw], 65535)
    th.urg = 0
    if table.ts_recent_stamp[tw]:
        th.has_ts = 1
        th.tsval = (tcp_jiffies(net) + table.ts_offset[tw]) & _M32
        th.tsecr = table.ts_recent[tw]
    opts = net.sks.option_sets[table.opts[tw]]
    rt = net.rtables[table.dst[tw]]
    ttl = opts.ttl if opts.ttl >= 0 else (rt.hoplimit or net.sysctl.ip_default_ttl)
    queue = ip_queue_of(net, rt.dev_loopback)
    # DF and identification 0, as every answer without a socket has (tcp_sk_init: IP_PMTUDISC_DO).
    off = ip_build(net, queue, th, table.saddr[tw], table.daddr[tw], ttl, opts.tos & 0xFC, True, 0, None, 0)
    if off >= 0:
        net.mib.TcpOutSegs += 1
        ip_local_out(net, queue, off, rt.dev)

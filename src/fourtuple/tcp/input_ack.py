"""TCP input, the acknowledgement (net/ipv4/tcp_input.c: tcp_ack and what it calls).

Round-trip times, the retransmission queue, SACK marks, the peer's window.  Loss recovery is in recovery.py.
The segment is net.rx_th.
"""

from __future__ import annotations

from fourtuple.kernel_map import FN_TCP_ACK
from fourtuple.tcp.cong.reno import tcp_reno_cong_avoid
from fourtuple.tcp.constants import (
    ACK_DATA,
    ACK_DATA_ACKED,
    ACK_ECE,
    ACK_RETRANS_ACKED,
    ACK_SET_TIMER,
    ACK_SYN_ACKED,
    ACK_UNA_ADVANCED,
    ACK_WIN_UPDATE,
    CA_CWR,
    CA_DISORDER,
    CA_OPEN,
    EV_OUT,
    LOST,
    RETRANS,
    SACKED,
)
from fourtuple.tcp.net import (
    Net,
    Segment,
    TcpCold,
    cold_of,
    cold_trim,
    inet_csk_clear_xmit_timer,
    net_event,
    tcp_jiffies,
    tcp_reset_probe0_timer,
)
from fourtuple.tcp.output import tcp_rto_max, tcp_sync_mss
from fourtuple.tcp.output_data import (
    tcp_probe0_when,
    tcp_rearm_rto,
    tcp_rto_min_us,
    tcp_schedule_loss_probe,
    tcp_snd_wnd_test,
    tcp_xmit_retransmit_queue,
)
from fourtuple.tcp.recovery import (
    tcp_ack_is_dubious,
    tcp_enter_cwr,
    tcp_fastretrans_alert,
    tcp_limit_reno_sacked,
    tcp_process_tlp_ack,
    tcp_sacktag_write_queue,
)
from fourtuple.tcp.sock import ECN_OK, PROBE0, SACK_OK, TS_OK
from fourtuple.tcp.states import TCP_SYN_RECV
from fourtuple.trace import trace
from fourtuple.wire.seq import after, before
from fourtuple.wire.tcp import ECE, SYN

_M32 = 0xFFFFFFFF


# Answers of tcp_ack
ACK_GOOD = 1
ACK_OLD = 0
ACK_TOO_OLD = -1
ACK_UNSENT = -2


# -- round-trip time


def tcp_rtt_estimator(net: Net, sk: int, m: int) -> None:
    """Take a sample of `m` us into srtt (times 8), mdev (times 4) and rttvar (RFC 6298 with Linux's refinements).

    A falling round trip raises the deviation only an eighth as fast, the variance falls once a round trip, and never
    below the minimum timeout.  mdev_max and rtt_seq are first written by the second sample (mdev_max 0 until then): an
    idle connection is without them.
    """
    sks = net.sks
    srtt = sks.srtt[sk]
    floor = tcp_rto_min_us(net, sk)
    if srtt == 0:
        sks.srtt[sk] = max(m << 3, 1)
        sks.mdev[sk] = m << 1
        sks.rttvar[sk] = max(m << 1, floor)
        return
    mdev = sks.mdev[sk]
    m -= srtt >> 3
    srtt += m
    if m < 0:
        m = -m - (mdev >> 2)
        if m > 0:
            m >>= 3
    else:
        m -= mdev >> 2
    mdev += m
    sks.mdev[sk] = mdev
    first_after_handshake = sks.mdev_max[sk] == 0
    if first_after_handshake:
        sks.mdev_max[sk] = sks.rttvar[sk]
    if mdev > sks.mdev_max[sk]:
        sks.mdev_max[sk] = mdev
        if mdev > sks.rttvar[sk]:
            sks.rttvar[sk] = mdev
    if first_after_handshake or after(sks.snd_una[sk], sks.rtt_seq[sk]):
        if sks.mdev_max[sk] < sks.rttvar[sk]:
            sks.rttvar[sk] -= (sks.rttvar[sk] - sks.mdev_max[sk]) >> 2
        sks.rtt_seq[sk] = sks.snd_nxt[sk]
        sks.mdev_max[sk] = floor
    sks.srtt[sk] = srtt if srtt > 0 else 1


def tcp_set_rto(net: Net, sk: int) -> None:
    """rto = srtt + rttvar in whole ms, at most the maximum."""
    rto = (net.sks.srtt[sk] >> 3) + net.sks.rttvar[sk]
    rto = (rto + 999) // 1000 * 1000
    limit = tcp_rto_max(net, sk)
    net.sks.rto[sk] = rto if rto < limit else limit


def tcp_rtt_by_timestamp(net: Net, sk: int) -> int:
    """Sample from the echoed timestamp, in whole ms, at least one; -1 if there is none."""
    if not net.rx_th.has_ts or net.rx_th.tsecr == 0:
        return -1
    delta = (tcp_jiffies(net) - (net.rx_th.tsecr - net.sks.ts_offset[sk])) & _M32
    if delta >= 2_147_483:
        return -1
    return (delta if delta else 1) * 1000


def tcp_ack_update_rtt(net: Net, sk: int, seq_rtt_us: int) -> bool:
    """Use a sample of the queue, or of the timestamp when the segment was retransmitted (Karn)."""
    if seq_rtt_us < 0 and net.sks.optbits[sk] & TS_OK:
        seq_rtt_us = tcp_rtt_by_timestamp(net, sk)
    if seq_rtt_us < 0:
        return False
    tcp_rtt_estimator(net, sk, seq_rtt_us)
    tcp_set_rto(net, sk)
    if net.sks.backoff[sk]:  # a zero that is not written costs no memory
        net.sks.backoff[sk] = 0
    return True


# -- timestamps


def tcp_store_ts_recent(net: Net, sk: int) -> None:
    """Keep the peer's timestamp.  The stamp is never 0: that means "none"."""
    net.sks.ts_recent[sk] = net.rx_th.tsval
    net.sks.ts_recent_stamp[sk] = net.now_us // 1_000_000 or 1


def tcp_replace_ts_recent(net: Net, sk: int) -> None:
    """RFC 7323, 4.3: only a segment that begins at or before the last ACK sent updates the timestamp to echo."""
    if net.rx_th.has_ts and net.sks.optbits[sk] & TS_OK and not after(net.rx_th.seq, net.sks.rcv_wup[sk]):
        if tcp_paws_check(net, sk, 0):
            tcp_store_ts_recent(net, sk)


def tcp_paws_check(net: Net, sk: int, window: int) -> bool:
    """Is the timestamp acceptable: not older than the last one (by more than `window`), or the last one ancient?"""
    sks = net.sks
    behind = (sks.ts_recent[sk] - net.rx_th.tsval) & _M32
    if behind <= window or behind >> 31:
        return True
    if net.now_us // 1_000_000 >= sks.ts_recent_stamp[sk] + 24 * 24 * 3600:
        return True
    return sks.ts_recent[sk] == 0


# -- the window


def tcp_ack_update_window(net: Net, sk: int, ack: int, ack_seq: int) -> int:
    """RFC 9293, 3.10.7.4: take the window of a segment that is newer than the last one that set it."""
    sks = net.sks
    nwin = net.rx_th.window
    if not net.rx_th.flags & SYN:
        nwin <<= sks.wscales[sk] >> 4
    flag = 0
    newer = after(ack, sks.snd_una[sk]) or after(ack_seq, sks.snd_wl1[sk])
    if newer or (ack_seq == sks.snd_wl1[sk] and (nwin > sks.snd_wnd[sk] or nwin == 0)):
        flag = ACK_WIN_UPDATE
        sks.snd_wl1[sk] = ack_seq
        if sks.snd_wnd[sk] != nwin:
            sks.snd_wnd[sk] = nwin
            if nwin > sks.max_window[sk]:
                sks.max_window[sk] = nwin
                tcp_sync_mss(net, sk, sks.pmtu[sk])
    sks.snd_una[sk] = ack
    return flag


# -- the acknowledgement


def tcp_ack(net: Net, sk: int) -> int:
    """Process the ACK of the segment: ACK_GOOD, ACK_OLD, or negative: the segment must not be used."""
    sks = net.sks
    th = net.rx_th
    ack = th.ack
    una = sks.snd_una[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_ACK, sk, ack, una, sks.snd_nxt[sk], th.window)
    if before(ack, una):
        return _old_ack(net, sk, ack, una)
    if after(ack, sks.snd_nxt[sk]):
        return ACK_UNSENT
    flag = 0
    if ack != una:
        flag = ACK_UNA_ADVANCED
        sks.retransmits[sk] = 0
    tcp_replace_ts_recent(net, sk)
    cold = cold_of(net, sk)
    in_flight = una != sks.snd_nxt[sk]
    if th.payload_len or th.flags & 3:
        flag |= ACK_DATA
    else:
        net.mib.TcpExtTCPPureAcks += 1
    flag |= tcp_ack_update_window(net, sk, ack, th.seq)
    if cold is not None and th.n_sack and sks.optbits[sk] & SACK_OK:
        flag |= tcp_sacktag_write_queue(net, sk, cold, una)
    if sks.optbits[sk] & ECN_OK and th.flags & ECE and not th.flags & SYN:
        flag |= ACK_ECE
    sks.err_soft[sk] = 0
    sks.probes[sk] = 0
    sks.rcv_tstamp[sk] = tcp_jiffies(net)
    if not in_flight:
        tcp_ack_probe(net, sk)
        return ACK_GOOD
    if cold is None or not cold.rtx:
        _syn_acked(net, sk, flag)
        return ACK_GOOD
    _ack_queue(net, sk, cold, flag, una)
    return ACK_GOOD


def _old_ack(net: Net, sk: int, ack: int, una: int) -> int:
    """Behind snd_una: harmless within one window, else a blind injection (RFC 5961, 5.2)."""
    limit = (una - net.sks.max_window[sk]) & _M32
    if before(ack, limit):
        return ACK_TOO_OLD
    cold = cold_of(net, sk)
    if cold is not None and net.rx_th.n_sack and net.sks.optbits[sk] & SACK_OK:
        tcp_sacktag_write_queue(net, sk, cold, una)
        cold.first_sackt = 0
    return ACK_OLD


def _syn_acked(net: Net, sk: int, flag: int) -> None:
    """The SYN without a Segment was acknowledged: SYN_RECV, both of a listener's child and of a simultaneous open."""
    if not flag & ACK_UNA_ADVANCED:
        return
    sample = -1
    if net.sks.total_retrans[sk] == 0:
        sample = (net.now_us - net.sks.lrcvtime[sk]) & _M32 if net.sks.sk_state[sk] != TCP_SYN_RECV else -1
    tcp_ack_update_rtt(net, sk, sample)
    inet_csk_clear_xmit_timer(net, sk)


def _ack_queue(net: Net, sk: int, cold: TcpCold, flag: int, prior_una: int) -> None:
    prior_flight = len(cold.rtx) - cold.sacked_out
    flag |= tcp_clean_rtx_queue(net, sk, cold)
    acked = prior_flight - (len(cold.rtx) - cold.sacked_out)
    if cold.tlp_high_seq:
        tcp_process_tlp_ack(net, sk, cold, flag)
    rexmit = False
    if flag & ACK_ECE and cold.ca_state < CA_CWR:
        tcp_enter_cwr(net, sk, cold)
    if tcp_ack_is_dubious(cold, flag):
        rexmit = tcp_fastretrans_alert(net, sk, cold, flag, prior_una)
    if flag & ACK_SET_TIMER and not tcp_schedule_loss_probe(net, sk, True):
        tcp_rearm_rto(net, sk)
    if acked > 0 and cold.ca_state in (CA_OPEN, CA_DISORDER) and flag & ACK_DATA_ACKED:
        tcp_reno_cong_avoid(net, sk, cold, acked)
    elif acked > 0 and cold.ca_state == 4 and flag & ACK_DATA_ACKED:  # Loss: slow start anew
        cold.is_cwnd_limited = True
        tcp_reno_cong_avoid(net, sk, cold, acked)
    if rexmit:
        tcp_xmit_retransmit_queue(net, sk)
    cold_trim(net, sk)


def tcp_clean_rtx_queue(net: Net, sk: int, cold: TcpCold) -> int:
    """Drop what is acknowledged; take an RTT sample of the oldest segment sent only once, or of what was SACKed."""
    sks = net.sks
    una = sks.snd_una[sk]
    flag = 0
    rtt = -1
    acked = 0
    while cold.rtx:
        seg = cold.rtx[0]
        if after(seg.end_seq, una):
            if before(seg.seq, una) and seg.length:
                _trim_head(seg, (una - seg.seq) & _M32)
                flag |= ACK_DATA_ACKED
            break
        if rtt < 0 and not seg.rexmits and not seg.marks & SACKED:
            rtt = net.now_us - seg.sent_us
        flag |= _segment_acked(net, sk, cold, seg)
        acked += 1
    # Karn: an ACK that covers a retransmission says nothing certain.
    if flag & ACK_RETRANS_ACKED:
        rtt = -1
    if cold.first_sackt:
        flag |= _sack_rtt(net, sk, cold, flag, rtt)
    elif flag:
        tcp_ack_update_rtt(net, sk, rtt)
    if not flag & (ACK_DATA_ACKED | ACK_SYN_ACKED):
        return flag
    if not sks.optbits[sk] & SACK_OK:
        _tcp_remove_reno_sacks(cold, acked)
    if not cold.rtx:
        sks.retrans_stamp[sk] = 0
    if sks.sk_state[sk] != TCP_SYN_RECV:
        net_event(net, sk, EV_OUT)
    return flag | ACK_SET_TIMER


def _segment_acked(net: Net, sk: int, cold: TcpCold, seg: Segment) -> int:
    """The oldest segment leaves the queue."""
    flag = ACK_RETRANS_ACKED if seg.rexmits else 0
    if seg.flags & SYN:
        net.sks.retrans_stamp[sk] = 0
        flag |= ACK_SYN_ACKED
    else:
        flag |= ACK_DATA_ACKED
    _uncount(cold, seg)
    cold.rtx.popleft()
    net.mib.TcpExtTCPDelivered += 1
    return flag


def _sack_rtt(net: Net, sk: int, cold: TcpCold, acked: int, rtt: int) -> int:
    """A SACKed segment is as good a sample, if nothing better is there; it alone may set the timer anew.

    Not if it was sent after the oldest segment was last: a recovery could put its timeout off for ever.
    """
    sack_rtt = net.now_us - cold.first_sackt
    cold.first_sackt = 0
    tcp_ack_update_rtt(net, sk, sack_rtt if rtt < 0 else rtt)
    if acked or not cold.rtx:
        return 0
    head: Segment = cold.rtx[0]
    return ACK_SET_TIMER if sack_rtt > net.now_us - head.sent_us else 0


def _tcp_remove_reno_sacks(cold: TcpCold, acked: int) -> None:
    """Without SACK: one of the acknowledged segments filled the hole, the others are what the duplicates stood for."""
    beyond = acked - 1 if acked else 0
    cold.sacked_out -= min(beyond, cold.sacked_out)
    tcp_limit_reno_sacked(cold)


def _uncount(cold: TcpCold, seg: Segment) -> None:
    """The segment leaves the queue with its marks."""
    if seg.marks & SACKED:
        cold.sacked_out -= 1
    if seg.marks & LOST:
        cold.lost_out -= 1
    if seg.marks & RETRANS:
        cold.retrans_out -= 1


def _trim_head(seg: Segment, count: int) -> None:
    """Part of a segment was acknowledged."""
    seg.payload = seg.payload[count:]
    seg.length -= count
    seg.seq = (seg.seq + count) & _M32


def tcp_ack_probe(net: Net, sk: int) -> None:
    """Nothing in flight: an ACK that opens the window ends the probing, any other shows that the peer lives."""
    cold = cold_of(net, sk)
    if cold is None or not cold.sendq:
        return
    if tcp_snd_wnd_test(net, sk, cold.sendq[0], net.sks.mss_cache[sk]):
        net.sks.backoff[sk] = 0
        net.sks.probes[sk] = 0
        cold.probes_tstamp = 0
        if net.sks.flags[sk] & PROBE0:
            inet_csk_clear_xmit_timer(net, sk)
    else:
        tcp_reset_probe0_timer(net, sk, tcp_probe0_when(net, sk, cold))

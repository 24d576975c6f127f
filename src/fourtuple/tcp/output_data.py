"""TCP output of data (net/ipv4/tcp_output.c): what may be sent now, FIN, retransmission, loss and window probes.

A Segment is at most one MSS; it moves from `sendq` to `rtx` when it is first sent and leaves `rtx` when acknowledged.
The SYN has no Segment unless a FIN was sent before it was acknowledged.
"""

from __future__ import annotations

from fourtuple.inet.flags import CORK, NODELAY, PINGPONG
from fourtuple.kernel_map import FN_TCP_RETRANSMIT_SKB, FN_TCP_SEND_FIN, FN_TCP_WRITE_XMIT
from fourtuple.tcp.constants import (
    CA_CWR,
    CA_OPEN,
    LOST,
    RETRANS,
    SACKED,
    TCP_TIMEOUT_MIN,
)
from fourtuple.tcp.net import (
    Net,
    Segment,
    TcpCold,
    cold_get,
    cold_of,
    inet_csk_clear_xmit_timer,
    tcp_jiffies,
    tcp_reset_probe0_timer,
    tcp_reset_xmit_timer,
)
from fourtuple.tcp.output import (
    sk_dst,
    tcp_current_mss,
    tcp_retransmit_syn,
    tcp_rto_max,
    tcp_transmit_skb,
    tcp_xmit_probe_skb,
)
from fourtuple.tcp.sock import LOSS_PROBE, SACK_OK
from fourtuple.trace import trace
from fourtuple.wire.seq import after, before
from fourtuple.wire.tcp import ACK, FIN, PSH, SYN

_M32 = 0xFFFFFFFF


def tcp_packets_out(net: Net, sk: int) -> int:
    """Segments in flight, the implied SYN included."""
    cold = cold_of(net, sk)
    if cold is not None and cold.rtx:
        return len(cold.rtx)
    return 1 if net.sks.snd_una[sk] != net.sks.snd_nxt[sk] else 0


def tcp_packets_in_flight(cold: TcpCold) -> int:
    """Segments believed to be in the network (RFC 6675 pipe)."""
    return len(cold.rtx) - cold.sacked_out - cold.lost_out + cold.retrans_out


def tcp_rto_min_us(net: Net, sk: int) -> int:
    """Lower bound of the timeout: of the route, else tcp_rto_min_us."""
    rt = sk_dst(net, sk)
    if rt is not None and rt.rto_min_us:
        return rt.rto_min_us
    return net.sysctl.tcp_rto_min_us


def tcp_rearm_rto(net: Net, sk: int) -> None:
    """Retransmission timer: off when nothing is in flight, else a full timeout from now (RFC 6298, 5.3).

    After a loss probe's timer only the rest of the timeout counts, from when the oldest segment was sent.
    """
    cold = cold_of(net, sk)
    if cold is None or not cold.rtx:
        inet_csk_clear_xmit_timer(net, sk)
        return
    delay = net.sks.rto[sk]
    if net.sks.flags[sk] & LOSS_PROBE:
        delay = max(tcp_rto_delta_us(net, sk, cold), 1000)
    tcp_reset_xmit_timer(net, sk, delay)


def tcp_rto_delta_us(net: Net, sk: int, cold: TcpCold) -> int:
    """Time until the oldest segment in flight is a timeout old."""
    head: Segment = cold.rtx[0]
    due = head.sent_us + net.sks.rto[sk]
    return due - net.now_us


def tcp_schedule_loss_probe(net: Net, sk: int, advancing_rto: bool) -> bool:
    """Arm the tail loss probe (RFC 8985, 7.2) in place of the timeout; false if the timeout must be armed."""
    cold = cold_of(net, sk)
    if cold is None or not cold.rtx or not net.sks.optbits[sk] & SACK_OK:
        return False
    if net.sysctl.tcp_early_retrans not in (3, 4) or cold.ca_state not in (CA_OPEN, CA_CWR):
        return False
    if net.sks.srtt[sk]:
        timeout = net.sks.srtt[sk] >> 2
        timeout += tcp_rto_min_us(net, sk) if len(cold.rtx) == 1 else TCP_TIMEOUT_MIN
    else:
        timeout = 1_000_000
    left = net.sks.rto[sk] if advancing_rto else tcp_rto_delta_us(net, sk, cold)
    if left > 0 and left < timeout:
        timeout = left
    tcp_reset_xmit_timer(net, sk, (timeout + 999) // 1000 * 1000)
    net.sks.flags[sk] |= LOSS_PROBE
    return True


# -- new data


def tcp_write_xmit(net: Net, sk: int, nagle_off: bool, push_one: int) -> bool:
    """Send what congestion window, peer's window and Nagle allow; true if data waits with nothing in flight.

    push_one 2 is a tail loss probe: one segment, whatever the congestion window.
    """
    cold = cold_of(net, sk)
    if cold is None or not cold.sendq:
        return False
    mss = tcp_current_mss(net, sk)
    sent = 0
    limited = False
    while cold.sendq:
        quota = tcp_cwnd_test(net, sk, cold) if push_one == 0 else 1
        if quota == 0:
            limited = True
            break
        count = _send_burst(net, sk, cold, mss, quota, nagle_off)
        sent += count
        if count < quota or push_one:
            break
    if not sent:
        return not cold.rtx and len(cold.sendq) > 0
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_WRITE_XMIT, sk, sent, len(cold.sendq), net.sks.snd_cwnd[sk], net.sks.snd_wnd[sk])
    tcp_cwnd_validate(net, sk, cold, limited)
    if push_one != 2:
        tcp_schedule_loss_probe(net, sk, False)
    return False


def tcp_cwnd_test(net: Net, sk: int, cold: TcpCold) -> int:
    """Segments that may go out as one burst: what the window has left, half of the window at most."""
    cwnd = net.sks.snd_cwnd[sk]
    flying = tcp_packets_in_flight(cold)
    if flying >= cwnd:
        return 0
    return min(max(cwnd >> 1, 1), cwnd - flying)


def _send_burst(net: Net, sk: int, cold: TcpCold, mss: int, quota: int, nagle_off: bool) -> int:
    """Send up to `quota` segments as the kernel sends one large skb; how many went out.

    The last one of several pushes.  After a whole segment the peer's window is filled to its end.
    """
    count = 0
    while cold.sendq and count < quota:
        seg = cold.sendq[0]
        if seg.length < mss and len(cold.sendq) > 1:
            _fill_up(cold, seg, mss)
        elif seg.length > mss:
            cold.sendq.appendleft(tcp_fragment(seg, mss))
            seg = cold.sendq[0]
        if not tcp_snd_wnd_test(net, sk, seg, mss):
            room = (net.sks.snd_una[sk] + net.sks.snd_wnd[sk] - seg.seq) & _M32
            if count == 0 or room == 0 or room >= seg.length:
                break
            cold.sendq.appendleft(tcp_fragment(seg, room))
            seg = cold.sendq[0]
        if not tcp_nagle_test(net, sk, cold, seg, mss, nagle_off):
            break
        count += 1
        if count > 1 and (count == quota or len(cold.sendq) == 1 or _ends_window(net, sk, cold)):
            seg.flags |= PSH
        _tcp_transmit_segment(net, sk, seg)
        tcp_event_new_data_sent(net, sk, cold, seg)
        if seg.length < mss:
            cold.snd_sml = seg.end_seq
    return count


def _fill_up(cold: TcpCold, seg: Segment, mss: int) -> None:
    """What is not sent yet is one stream: a short first segment takes from those behind it."""
    while seg.length < mss and len(cold.sendq) > 1 and not seg.flags & FIN:
        behind = cold.sendq[1]
        if behind.length > mss - seg.length:
            behind = tcp_fragment(behind, mss - seg.length)
        else:
            del cold.sendq[1]
        _join(seg, behind)


def _join(seg: Segment, behind: Segment) -> None:
    seg.payload = bytes(seg.payload) + bytes(behind.payload)
    seg.length += behind.length
    seg.end_seq = behind.end_seq
    seg.flags = (seg.flags & ~PSH) | behind.flags


def _ends_window(net: Net, sk: int, cold: TcpCold) -> bool:
    """Does the first segment of the queue fill the peer's window?"""
    limit = (net.sks.snd_una[sk] + net.sks.snd_wnd[sk]) & _M32
    end: int = cold.sendq[0].end_seq
    return end == limit


def tcp_snd_wnd_test(net: Net, sk: int, seg: Segment, mss: int) -> bool:
    """Does the segment end within the peer's window?"""
    end = seg.end_seq if seg.length <= mss else seg.seq + mss
    limit = (net.sks.snd_una[sk] + net.sks.snd_wnd[sk]) & _M32
    return not after(end, limit)


def tcp_nagle_test(net: Net, sk: int, cold: TcpCold, seg: Segment, mss: int, nagle_off: bool) -> bool:
    """RFC 896 with Minshall's change: a small last segment waits while another small one is in flight."""
    if len(cold.sendq) > 1 or nagle_off or seg.flags & FIN or seg.length >= mss:
        return True
    flags = net.sks.flags[sk]
    if flags & CORK:
        return False
    if flags & NODELAY or not cold.rtx:
        return True
    small = cold.snd_sml
    return not after(small, net.sks.snd_una[sk]) or after(small, net.sks.snd_nxt[sk])


def tcp_fragment(seg: Segment, length: int) -> Segment:
    """Cut the first `length` bytes off: returns them as a segment of their own; PSH and FIN stay with the rest."""
    first = Segment(seg.seq, seg.payload[:length], seg.flags & ~(PSH | FIN))
    first.marks = seg.marks
    first.rexmits = seg.rexmits
    first.sent_us = seg.sent_us
    first.sent_ms = seg.sent_ms
    seg.payload = seg.payload[length:]
    seg.length -= length
    seg.seq = first.end_seq
    return first


def _tcp_transmit_segment(net: Net, sk: int, seg: Segment) -> None:
    seg.sent_us = net.now_us
    seg.sent_ms = tcp_jiffies(net)
    if seg.length:
        net.sks.lsndtime[sk] = seg.sent_ms
        if (seg.sent_ms - net.sks.lrcvtime[sk]) & _M32 < net.sks.ato[sk]:
            net.sks.flags[sk] |= PINGPONG
    tcp_transmit_skb(net, sk, seg.seq, seg.flags | ACK, seg.payload, seg.length)


def tcp_event_new_data_sent(net: Net, sk: int, cold: TcpCold, seg: Segment) -> None:
    """The segment is in flight now."""
    had = len(cold.rtx) > 0
    cold.sendq.popleft()
    cold.sendq_bytes -= seg.length
    cold.rtx.append(seg)
    net.sks.snd_nxt[sk] = seg.end_seq
    net.mib.TcpOutSegs += 1
    net.mib.TcpExtTCPOrigDataSent += 1
    if not had or net.sks.flags[sk] & LOSS_PROBE:
        tcp_rearm_rto(net, sk)


def tcp_cwnd_validate(net: Net, sk: int, cold: TcpCold, limited: bool) -> None:
    """Remember how much of the congestion window is used in this round trip (RFC 7661's concern)."""
    passed = not before(net.sks.snd_una[sk], cold.max_packets_seq)
    if passed or limited or (not cold.is_cwnd_limited and len(cold.rtx) > cold.max_packets_out):
        cold.is_cwnd_limited = limited
        cold.max_packets_out = len(cold.rtx)
        cold.max_packets_seq = net.sks.snd_nxt[sk]


def tcp_push_pending_frames(net: Net, sk: int, nagle_off: bool) -> None:
    """Send what can be sent; if the peer's window forbids all of it, make sure that it is probed."""
    if tcp_write_xmit(net, sk, nagle_off, 0):
        tcp_check_probe_timer(net, sk)


def tcp_check_probe_timer(net: Net, sk: int) -> None:
    """Data waits and no timer runs: arm the window probe."""
    if net.sks.timer_rtx[sk] == 0:
        tcp_reset_probe0_timer(net, sk, max(net.sks.rto[sk], tcp_rto_min_us(net, sk)))


def tcp_send_fin(net: Net, sk: int) -> None:
    """Queue a FIN, on the last unsent segment if there is one, and send what can be sent."""
    cold = cold_get(net, sk)
    if cold.fin_queued:
        return
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SEND_FIN, sk, net.sks.write_seq[sk])
    _make_syn_explicit(net, sk, cold)
    cold.fin_queued = True
    if cold.sendq:
        tail = cold.sendq[len(cold.sendq) - 1]
        tail.flags |= FIN
        tail.end_seq = (tail.end_seq + 1) & _M32
    else:
        cold.sendq.append(Segment(net.sks.write_seq[sk], b"", FIN))
    net.sks.write_seq[sk] = (net.sks.write_seq[sk] + 1) & _M32
    tcp_push_pending_frames(net, sk, True)


def _make_syn_explicit(net: Net, sk: int, cold: TcpCold) -> None:
    """A SYN in flight gets a Segment before anything is queued behind it."""
    if cold.rtx or net.sks.snd_una[sk] == net.sks.snd_nxt[sk]:
        return
    seg = Segment(net.sks.snd_una[sk], b"", SYN | ACK)
    seg.end_seq = net.sks.snd_nxt[sk]
    seg.rexmits = min(net.sks.total_retrans[sk], 255)
    seg.sent_us = net.now_us
    cold.rtx.append(seg)


# -- retransmission


def tcp_retransmit_skb(net: Net, sk: int, seg: Segment) -> int:
    """Send a segment again and mark it; 0, or -errno when the peer's window forbids it."""
    cold = cold_get(net, sk)
    error = _tcp_retransmit_skb(net, sk, cold, seg)
    if error != 0:
        net.mib.TcpExtTCPRetransFail += 1
        return error
    if seg.marks & RETRANS == 0:
        seg.marks |= RETRANS
        cold.retrans_out += 1
    if net.sks.retrans_stamp[sk] == 0:
        net.sks.retrans_stamp[sk] = tcp_jiffies(net) or 1
    cold.undo_retrans = max(cold.undo_retrans, 0) + 1
    return 0


def _tcp_retransmit_skb(net: Net, sk: int, cold: TcpCold, seg: Segment) -> int:
    mss = tcp_current_mss(net, sk)
    left = (net.sks.snd_una[sk] + net.sks.snd_wnd[sk] - seg.seq) & _M32
    if left == 0 or left >> 31:
        # Out of a window that shrank; the first segment still goes, as a probe.
        if seg.seq != net.sks.snd_una[sk]:
            return -11
        left = mss
    if seg.flags & SYN:
        tcp_retransmit_syn(net, sk)
        return 0
    if left < mss:
        mss = left
    if seg.length < mss and net.sysctl.tcp_retrans_collapse:
        _retrans_try_collapse(cold, seg, mss)
    if seg.length > mss and mss:
        first = tcp_fragment(seg, mss)
        place = cold.rtx.index(seg)
        cold.rtx.insert(place + 1, _swap(seg, first))
        if seg.marks & LOST:
            cold.lost_out += 1
        if seg.marks & RETRANS:
            cold.retrans_out += 1
    if seg.rexmits < 255:
        seg.rexmits += 1
    net.sks.total_retrans[sk] = (net.sks.total_retrans[sk] + 1) & 0xFFFF
    net.mib.TcpRetransSegs += 1
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RETRANSMIT_SKB, sk, seg.flags, seg.seq, 1, net.sks.total_retrans[sk])
    _tcp_transmit_segment(net, sk, seg)
    return 0


def _retrans_try_collapse(cold: TcpCold, seg: Segment, mss: int) -> None:
    """Fill a short segment up from those behind it, as far as the peer does not have them."""
    place = cold.rtx.index(seg) + 1
    while place < len(cold.rtx) and seg.length < mss:
        behind = cold.rtx[place]
        if behind.marks & SACKED or behind.flags & SYN or seg.flags & FIN:
            return
        if behind.length > mss - seg.length:
            if behind.length < mss:
                return  # written apart: only a whole segment joins
            behind = tcp_fragment(behind, mss - seg.length)
        else:
            del cold.rtx[place]
            if behind.marks & LOST:
                cold.lost_out -= 1
            if behind.marks & RETRANS:
                cold.retrans_out -= 1
            behind.marks = 0  # who walks over a copy of the queue passes it by
        _join(seg, behind)


def _swap(seg: Segment, first: Segment) -> Segment:
    """`seg` becomes the cut-off head `first`; what remained of it is returned."""
    rest = Segment(seg.seq, seg.payload, seg.flags)
    rest.marks, rest.rexmits, rest.sent_us, rest.sent_ms = seg.marks, seg.rexmits, seg.sent_us, seg.sent_ms
    seg.seq, seg.end_seq, seg.payload, seg.length, seg.flags = (
        first.seq,
        first.end_seq,
        first.payload,
        first.length,
        first.flags,
    )
    return rest


def tcp_xmit_retransmit_queue(net: Net, sk: int) -> None:
    """Send again what is marked lost, oldest first, as far as the congestion window goes.

    When that is the oldest segment in flight it gets a full timeout; a probe of the tail is not due any more.
    """
    cold = cold_of(net, sk)
    if cold is None or not cold.lost_out:
        return
    rearm = net.sks.timer_rtx[sk] == 0
    for seg in list(cold.rtx):
        if tcp_packets_in_flight(cold) >= net.sks.snd_cwnd[sk]:
            break
        if not seg.marks & LOST or seg.marks & (SACKED | RETRANS):
            continue
        if tcp_retransmit_skb(net, sk, seg) != 0:
            break
        net.mib.TcpExtTCPFastRetrans += 1
        if seg is cold.rtx[0]:
            rearm = True
    if rearm:
        tcp_reset_xmit_timer(net, sk, net.sks.rto[sk])


def tcp_send_loss_probe(net: Net, sk: int) -> None:
    """The probe timer fired: send new data if there is some, else the last segment again (RFC 8985, 7.3)."""
    cold = cold_of(net, sk)
    if cold is None or not cold.rtx:
        return
    if cold.tlp_high_seq == 0:
        if _send_probe(net, sk, cold):
            cold.tlp_high_seq = net.sks.snd_nxt[sk] or 1
            net.mib.TcpExtTCPLossProbes += 1
    tcp_rearm_rto(net, sk)


def _send_probe(net: Net, sk: int, cold: TcpCold) -> bool:
    cold.tlp_retrans = False
    if cold.sendq and tcp_snd_wnd_test(net, sk, cold.sendq[0], tcp_current_mss(net, sk)):
        flying = len(cold.rtx)
        tcp_write_xmit(net, sk, True, 2)
        return len(cold.rtx) > flying
    if _tcp_retransmit_skb(net, sk, cold, cold.rtx[len(cold.rtx) - 1]) != 0:
        return False
    cold.tlp_retrans = True
    return True


def tcp_write_wakeup(net: Net, sk: int) -> int:
    """Probe a window: with data if any fits, else with an ACK below the window; 0 if data went out, 1 for an ACK."""
    cold = cold_of(net, sk)
    net.mib.TcpExtTCPWinProbe += 1
    if cold is None or not cold.sendq:
        tcp_xmit_probe_skb(net, sk, False)
        return 1
    seg = cold.sendq[0]
    room = (net.sks.snd_una[sk] + net.sks.snd_wnd[sk] - seg.seq) & _M32
    if room == 0 or room >> 31:
        tcp_xmit_probe_skb(net, sk, False)
        return 1
    mss = min(tcp_current_mss(net, sk), room)
    if seg.length > mss:
        first = tcp_fragment(seg, mss)
        first.flags |= PSH
        cold.sendq.appendleft(first)
        seg = first
    seg.flags |= PSH
    _tcp_transmit_segment(net, sk, seg)
    tcp_event_new_data_sent(net, sk, cold, seg)
    return 0


def tcp_send_probe0(net: Net, sk: int) -> None:
    """The window probe timer fired: probe, then wait twice as long (RFC 9293, 3.8.6.1)."""
    tcp_write_wakeup(net, sk)
    cold = cold_of(net, sk)
    if cold is None or cold.rtx or not cold.sendq:
        net.sks.probes[sk] = 0
        net.sks.backoff[sk] = 0
        if cold is not None:
            cold.probes_tstamp = 0
        return
    if net.sks.backoff[sk] < net.sysctl.tcp_retries2:
        net.sks.backoff[sk] += 1
    if net.sks.probes[sk] < 255:
        net.sks.probes[sk] += 1
    tcp_reset_probe0_timer(net, sk, tcp_probe0_when(net, sk, cold))


def tcp_probe0_when(net: Net, sk: int, cold: TcpCold) -> int:
    """Wait before the next window probe, us: the timeout doubled for each one, but TCP_USER_TIMEOUT must be noticed."""
    base = max(net.sks.rto[sk], tcp_rto_min_us(net, sk))
    limit = tcp_rto_max(net, sk)
    shift = net.sks.backoff[sk]
    when = min(base << shift if shift < 32 else limit, limit)
    user = net.sks.option_sets[net.sks.opts[sk]].user_timeout_ms
    if not user or not cold.probes_tstamp:
        return when
    left = user
    left -= (tcp_jiffies(net) - cold.probes_tstamp) & _M32
    return min(when, max(left * 1000, TCP_TIMEOUT_MIN))

"""TCP input, the payload (net/ipv4/tcp_input.c: tcp_data_queue and what it calls).

In-order data, the out-of-order queue and the SACK blocks it leads to, FIN, when to acknowledge, how far the window
grows.  The segment is net.rx_th; its payload is copied once, out of the receive buffer.
"""

from __future__ import annotations

from fourtuple.inet.flags import DEAD, DONE, PINGPONG
from fourtuple.kernel_map import FN_TCP_DATA_QUEUE, FN_TCP_FIN
from fourtuple.tcp.constants import (
    EV_IN,
    EV_STATE,
    TCP_ATO_MIN,
    TCP_MAX_QUICKACKS,
)
from fourtuple.tcp.minisocks import tcp_time_wait
from fourtuple.tcp.net import (
    Net,
    TcpCold,
    cold_get,
    cold_of,
    net_event,
    tcp_jiffies,
)
from fourtuple.tcp.output import (
    sk_dst,
    tcp_initialize_rcv_mss,
    tcp_send_ack,
    tcp_send_delayed_ack,
)
from fourtuple.tcp.output_data import tcp_push_pending_frames
from fourtuple.tcp.sock import (
    ACK_NOW,
    ACK_PUSHED,
    ACK_PUSHED2,
    ACK_SCHED,
    DEMAND_CWR,
    ECN_OK,
    RCV_SHUTDOWN,
    SACK_OK,
)
from fourtuple.tcp.states import (
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_SYN_RECV,
    TCP_TIME_WAIT,
)
from fourtuple.tcp.tcp import tcp_set_state
from fourtuple.tcp.window import (
    _tcp_select_window,
    sk_rcvbuf,
    skb_truesize,
    tcp_full_space,
    tcp_receive_window,
    tcp_space,
)
from fourtuple.trace import trace
from fourtuple.wire.seq import after, before
from fourtuple.wire.tcp import CWR, FIN, PSH, SYN

_M32 = 0xFFFFFFFF
_RCVBUF_LOCK = 2


# -- delayed acknowledgements


def tcp_incr_quickack(net: Net, sk: int, most: int) -> None:
    """Allow as many immediate ACKs as half the window has segments."""
    if net.sks.rcv_mss[sk] == 0:
        tcp_initialize_rcv_mss(net, sk)
    quick = net.sks.rcv_wnd[sk] // (2 * net.sks.rcv_mss[sk])
    if quick == 0:
        quick = 2
    if quick > most:
        quick = most
    if quick > net.sks.quick[sk]:
        net.sks.quick[sk] = quick


def tcp_enter_quickack_mode(net: Net, sk: int, most: int) -> None:
    """Acknowledge at once for a while: a new connection, or something is wrong."""
    tcp_incr_quickack(net, sk, most)
    net.sks.flags[sk] &= ~PINGPONG & _M32
    net.sks.ato[sk] = TCP_ATO_MIN


def tcp_in_quickack_mode(net: Net, sk: int) -> bool:
    """Immediate ACKs: by the route, or some are left and the traffic is not interactive."""
    if net.sks.quick[sk] and not net.sks.flags[sk] & PINGPONG:
        return True
    rt = sk_dst(net, sk)
    return rt is not None and rt.quickack


def tcp_event_data_recv(net: Net, sk: int, length: int) -> None:
    """Data arrived in order: an ACK is owed; estimate the peer's segment size and pace; let the window grow."""
    sks = net.sks
    sks.flags[sk] |= ACK_SCHED
    if sks.rcv_mss[sk] == 0:
        tcp_initialize_rcv_mss(net, sk)
    if length >= sks.rcv_mss[sk]:
        if length != sks.rcv_mss[sk]:
            _measure_overhead(net, sk, length)
        sks.rcv_mss[sk] = min(length, sks.advmss[sk])
        if net.rx_th.flags & PSH:
            sks.flags[sk] |= ACK_PUSHED
    else:
        sks.flags[sk] |= ACK_PUSHED2 | ACK_PUSHED if sks.flags[sk] & ACK_PUSHED else ACK_PUSHED
    now = tcp_jiffies(net)
    if sks.ato[sk] == 0:
        tcp_incr_quickack(net, sk, TCP_MAX_QUICKACKS)
        sks.ato[sk] = TCP_ATO_MIN
    else:
        m = (now - sks.lrcvtime[sk]) & _M32
        if m <= TCP_ATO_MIN // 2:
            sks.ato[sk] = (sks.ato[sk] >> 1) + TCP_ATO_MIN // 2
        elif m < sks.ato[sk]:
            sks.ato[sk] = min((sks.ato[sk] >> 1) + m, sks.rto[sk] // 1000)
        elif m > sks.rto[sk] // 1000:
            tcp_incr_quickack(net, sk, TCP_MAX_QUICKACKS)
    sks.lrcvtime[sk] = now
    if length >= 128:
        tcp_grow_window(net, sk, length)


def _measure_overhead(net: Net, sk: int, length: int) -> None:
    """A segment of a new size shows what window the receive buffer is worth (tcp_measure_rcv_mss)."""
    sks = net.sks
    ratio = length * 256 // skb_truesize(length + 52)
    old = sks.scaling_ratio[sk] or 128
    sks.scaling_ratio[sk] = min(max(ratio, 1), 255)
    if old == sks.scaling_ratio[sk]:
        return
    clamp = tcp_full_space(net, sk)
    if clamp > sks.window_clamp[sk]:
        sks.rcv_ssthresh[sk] = max(min(sks.rcv_wnd[sk], clamp), sks.rcv_ssthresh[sk])
    elif sks.rcv_ssthresh[sk] > clamp:
        sks.rcv_ssthresh[sk] = clamp
    sks.window_clamp[sk] = clamp
    if sks.rcvq_space[sk] > clamp:
        sks.rcvq_space[sk] = clamp


def tcp_grow_window(net: Net, sk: int, length: int) -> None:
    """Two segments more for each one received, up to the clamp and the free buffer."""
    room = min(net.sks.window_clamp[sk], tcp_space(net, sk)) - net.sks.rcv_ssthresh[sk]
    if room <= 0:
        return
    grow = max(2 * net.sks.advmss[sk], 2 * length)
    net.sks.rcv_ssthresh[sk] += min(room, grow)
    net.sks.quick[sk] |= 1


def tcp_ack_snd_check(net: Net, sk: int) -> None:
    """Acknowledge now or later (RFC 9293, 3.8.6.3)."""
    sks = net.sks
    if not sks.flags[sk] & ACK_SCHED:
        return
    unread = (sks.rcv_nxt[sk] - sks.rcv_wup[sk]) & _M32
    if unread > sks.rcv_mss[sk] and _tcp_select_window(net, sk) >= sks.rcv_wnd[sk]:
        tcp_send_ack(net, sk)
        return
    cold = cold_of(net, sk)
    if tcp_in_quickack_mode(net, sk) or sks.flags[sk] & ACK_NOW or (cold is not None and (cold.ofo or cold.dsack)):
        tcp_send_ack(net, sk)
    else:
        tcp_send_delayed_ack(net, sk)


def tcp_data_snd_check(net: Net, sk: int) -> None:
    """An ACK may have made room to send."""
    cold = cold_of(net, sk)
    if cold is not None and cold.sendq:
        tcp_push_pending_frames(net, sk, False)


# -- payload


def tcp_data_queue(net: Net, sk: int) -> None:
    """Queue the payload and FIN of the segment: in order, out of order, or a duplicate to acknowledge again."""
    sks = net.sks
    th = net.rx_th
    seq = th.seq
    end_seq = (seq + th.payload_len + (th.flags & FIN) + (th.flags >> 1 & 1)) & _M32
    if seq == end_seq:
        return
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_DATA_QUEUE, sk, seq, th.payload_len, sks.rcv_nxt[sk])
    if sks.optbits[sk] & ECN_OK and th.flags & CWR:
        sks.flags[sk] &= ~DEMAND_CWR & _M32
    window = tcp_receive_window(sks, sk)
    if seq == sks.rcv_nxt[sk]:
        if window == 0:
            net.mib.TcpExtTCPZeroWindowDrop += 1
            _out_of_window(net, sk)
        else:
            _queue_in_order(net, sk, seq, end_seq)
    elif not after(end_seq, sks.rcv_nxt[sk]):
        net.mib.TcpExtDelayedACKLost += 1
        _tcp_dsack_set(net, sk, seq, end_seq)
        _out_of_window(net, sk)
    elif not before(seq, (sks.rcv_nxt[sk] + window) & _M32):
        _out_of_window(net, sk)
    elif before(seq, sks.rcv_nxt[sk]):
        _tcp_dsack_set(net, sk, seq, sks.rcv_nxt[sk])
        if window == 0:
            net.mib.TcpExtTCPZeroWindowDrop += 1
            _out_of_window(net, sk)
        else:
            _queue_in_order(net, sk, seq, end_seq)
    else:
        payload = net.rx_buf.read(th.payload_off, th.payload_len)
        tcp_data_queue_ofo(net, sk, seq, end_seq, payload, th.flags & FIN != 0)


def _out_of_window(net: Net, sk: int) -> None:
    tcp_enter_quickack_mode(net, sk, TCP_MAX_QUICKACKS)
    net.sks.flags[sk] |= ACK_SCHED


def _tcp_dsack_set(net: Net, sk: int, seq: int, end_seq: int) -> None:
    if net.sks.optbits[sk] & SACK_OK and net.sysctl.tcp_dsack:
        cold = cold_get(net, sk)
        cold.dsack = True
        cold.dsack_start = seq
        cold.dsack_end = end_seq
        net.mib.TcpExtTCPDSACKOldSent += 1


def _queue_in_order(net: Net, sk: int, seq: int, end_seq: int) -> None:
    sks = net.sks
    th = net.rx_th
    skip = (sks.rcv_nxt[sk] - seq) & _M32
    if th.flags & SYN:
        skip -= 1
    if skip < th.payload_len:
        length = th.payload_len - skip
        payload = net.rx_buf.read(th.payload_off + skip, length)
        cold = cold_get(net, sk)
        _receive(cold, payload)
        sks.rcv_nxt[sk] = (sks.rcv_nxt[sk] + length) & _M32
        tcp_event_data_recv(net, sk, length)
        net_event(net, sk, EV_IN)
    if th.flags & FIN:
        sks.rcv_nxt[sk] = end_seq
        tcp_fin(net, sk)
        return
    cold_after = cold_of(net, sk)
    if cold_after is not None and cold_after.ofo:
        tcp_ofo_queue(net, sk, cold_after)
        if not cold_after.ofo:
            # RFC 5681, 4.2: a hole was filled, acknowledge at once.
            sks.flags[sk] |= ACK_NOW


def _receive(cold: TcpCold, payload: bytes) -> None:
    """Append to the receive queue and charge it."""
    size = skb_truesize(len(payload) + 52)
    cold.rcvq.append(payload)
    cold.rcvq_bytes += len(payload)
    cold.rcvq_sizes.append(size)
    cold.rmem += size


def tcp_data_queue_ofo(net: Net, sk: int, seq: int, end_seq: int, payload: bytes, fin: bool) -> None:
    """Keep a segment that came too early, without what is there already; report it by SACK."""
    cold = cold_get(net, sk)
    sks = net.sks
    sks.flags[sk] |= ACK_SCHED
    if tcp_space(net, sk) < len(payload):
        net.mib.TcpExtTCPOFODrop += 1
        return
    net.mib.TcpExtTCPOFOQueue += 1
    _ofo_insert(net, cold, seq, end_seq, payload, fin)
    if sks.optbits[sk] & SACK_OK:
        _tcp_sack_new_ofo_skb(cold, seq, end_seq)


def _ofo_insert(net: Net, cold: TcpCold, seq: int, end_seq: int, payload: bytes, fin: bool) -> None:
    """Insert into the sorted disjoint list the parts that are new."""
    place = 0
    while place < len(cold.ofo) and not after(cold.ofo[place][1], seq):
        place += 1
    while place < len(cold.ofo) and before(seq, end_seq):
        old_seq, old_end, _, _ = cold.ofo[place]
        if not before(old_seq, end_seq):
            break
        if before(seq, old_seq):
            part = payload[: (old_seq - seq) & _M32]
            _ofo_add(cold, place, (seq, old_seq, part, False))
            place += 1
        if not after(end_seq, old_end):
            cold.dsack, cold.dsack_start, cold.dsack_end = True, seq, end_seq
            net.mib.TcpExtTCPDSACKOfoSent += 1
            return
        payload = payload[(old_end - seq) & _M32 :]
        seq = old_end
        place += 1
    _ofo_add(cold, place, (seq, end_seq, payload, fin))


def _ofo_add(cold: TcpCold, place: int, entry: tuple[int, int, bytes, bool]) -> None:
    cold.ofo.insert(place, entry)
    cold.ofo_bytes += len(entry[2])
    cold.rmem += skb_truesize(len(entry[2]) + 52)


def _tcp_sack_new_ofo_skb(cold: TcpCold, seq: int, end_seq: int) -> None:
    """The newest block first, grown by those it touches (RFC 2018, 4)."""
    rest = []
    for start, end in cold.recent_sacks:
        if after(start, end_seq) or before(end, seq):
            rest.append((start, end))
        else:
            seq = start if before(start, seq) else seq
            end_seq = end if after(end, end_seq) else end_seq
    cold.recent_sacks = [(seq, end_seq), *rest][:4]


def tcp_ofo_queue(net: Net, sk: int, cold: TcpCold) -> None:
    """Move what became in order to the receive queue."""
    sks = net.sks
    while cold.ofo and not after(cold.ofo[0][0], sks.rcv_nxt[sk]):
        seq, end_seq, payload, fin = cold.ofo.pop(0)
        cold.ofo_bytes -= len(payload)
        cold.rmem -= skb_truesize(len(payload) + 52)
        if after(end_seq, sks.rcv_nxt[sk]):
            part = payload[(sks.rcv_nxt[sk] - seq) & _M32 :]
            if part:
                _receive(cold, part)
                net_event(net, sk, EV_IN)
            sks.rcv_nxt[sk] = end_seq
            if fin:
                tcp_fin(net, sk)
                break
    cold.recent_sacks = [block for block in cold.recent_sacks if after(block[1], sks.rcv_nxt[sk])]


# -- FIN


def tcp_fin(net: Net, sk: int) -> None:
    """The peer has nothing more to send (RFC 9293, 3.10.7.4, eighth)."""
    sks = net.sks
    sks.flags[sk] |= ACK_SCHED | DONE
    sks.shutdown[sk] |= RCV_SHUTDOWN
    state = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_FIN, sk, state)
    if state in (TCP_SYN_RECV, TCP_ESTABLISHED):
        tcp_set_state(net, sk, TCP_CLOSE_WAIT)
        sks.flags[sk] |= PINGPONG
    elif state == TCP_FIN_WAIT1:
        tcp_send_ack(net, sk)
        tcp_set_state(net, sk, TCP_CLOSING)
    elif state == TCP_FIN_WAIT2:
        tcp_send_ack(net, sk)
        tcp_time_wait(net, sk, TCP_TIME_WAIT, 0)
        return
    cold = cold_of(net, sk)
    if cold is not None:
        for entry in cold.ofo:
            cold.rmem -= skb_truesize(len(entry[2]) + 52)
        cold.ofo = []
        cold.ofo_bytes = 0
        cold.recent_sacks = []
    if not sks.flags[sk] & DEAD:
        net_event(net, sk, EV_STATE | EV_IN)


# -- buffer tuning


def tcp_rcv_space_adjust(net: Net, sk: int) -> None:
    """Once a round trip: if the application reads faster than the buffer allows, let it grow up to tcp_rmem[2]."""
    sks = net.sks
    now = tcp_jiffies(net)
    if sks.rcvq_space[sk] == 0:
        sks.rcvq_space[sk] = min(sks.rcv_ssthresh[sk], sks.rcv_wnd[sk], 10 * sks.advmss[sk])
        sks.rcvq_seq[sk] = sks.copied_seq[sk]
        sks.rcvq_time[sk] = now
        return
    rtt = (sks.srtt[sk] >> 3) // 1000
    if (now - sks.rcvq_time[sk]) & _M32 < max(rtt, 1):
        return
    copied = (sks.copied_seq[sk] - sks.rcvq_seq[sk]) & _M32
    if copied > sks.rcvq_space[sk]:
        if net.sysctl.tcp_moderate_rcvbuf and not sks.userlocks[sk] & _RCVBUF_LOCK:
            rcvwin = 2 * copied + 16 * sks.advmss[sk]
            limit = net.sysctl.tcp_rmem_max
            buf = min(rcvwin * 256 // (sks.scaling_ratio[sk] or 128), limit)
            if buf > sk_rcvbuf(net, sk):
                sks.rcvbuf[sk] = buf
                sks.window_clamp[sk] = tcp_full_space(net, sk)
        sks.rcvq_space[sk] = copied
    sks.rcvq_seq[sk] = sks.copied_seq[sk]
    sks.rcvq_time[sk] = now

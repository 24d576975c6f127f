"""Loss recovery (net/ipv4/tcp_input.c): SACK marks, fast retransmit, the state after a timeout.

The states are Linux's (CA_OPEN .. CA_LOSS).  What is lost is decided by three duplicate ACKs or three segments' worth
of SACK beyond a hole (RFC 6675); RACK's reordering timer, proportional rate reduction and F-RTO are not here.
"""

from __future__ import annotations

from fourtuple.tcp.cong.reno import tcp_reno_ssthresh, tcp_ssthresh
from fourtuple.tcp.constants import (
    ACK_DATA_SACKED,
    ACK_DSACK,
    ACK_ECE,
    ACK_NOT_DUP,
    ACK_UNA_ADVANCED,
    CA_CWR,
    CA_DISORDER,
    CA_LOSS,
    CA_OPEN,
    CA_RECOVERY,
    LOST,
    RETRANS,
    SACKED,
)
from fourtuple.tcp.net import (
    Net,
    Segment,
    TcpCold,
    cold_of,
)
from fourtuple.tcp.output_data import tcp_packets_in_flight, tcp_xmit_retransmit_queue
from fourtuple.tcp.sock import QUEUE_CWR, SACK_OK
from fourtuple.wire.seq import after, before

_DUP_THRESH = 3  # RFC 5681, 3.2; net.ipv4.tcp_reordering


def tcp_sacktag_write_queue(net: Net, sk: int, cold: TcpCold, prior_una: int) -> int:
    """Mark what the SACK blocks of the segment cover; a block at or below the ACK is a duplicate report (RFC 2883)."""
    th = net.rx_th
    flag = 0
    for i in range(th.n_sack):
        start = th.sack_start[i]
        end = th.sack_end[i]
        if not before(start, end) or after(end, net.sks.snd_nxt[sk]):
            continue
        if i == 0 and not after(end, th.ack):
            flag |= ACK_DSACK
            continue
        if not before(start, net.sks.snd_una[sk]):
            flag |= _mark_sacked(net, cold, start, end)
    return flag


def _mark_sacked(net: Net, cold: TcpCold, start: int, end: int) -> int:
    flag = 0
    for seg in cold.rtx:
        if not before(seg.seq, end):
            break
        if seg.marks & SACKED or before(seg.seq, start) or after(seg.end_seq, end):
            continue
        if seg.marks & LOST:
            cold.lost_out -= 1
        if seg.marks & RETRANS:
            cold.retrans_out -= 1
        seg.marks = SACKED
        cold.sacked_out += 1
        if not seg.rexmits and not cold.first_sackt:
            cold.first_sackt = seg.sent_us
        flag = ACK_DATA_SACKED
        net.mib.TcpExtTCPDelivered += 1
    return flag


def tcp_ack_is_dubious(cold: TcpCold, flag: int) -> bool:
    """Not a plain advance: a duplicate, news of holes, a congestion mark, or recovery under way."""
    return not flag & ACK_NOT_DUP or flag & (ACK_DATA_SACKED | ACK_ECE) != 0 or cold.ca_state != CA_OPEN


def tcp_fastretrans_alert(net: Net, sk: int, cold: TcpCold, flag: int, prior_una: int) -> bool:
    """Move between the states of recovery; true when there may be something to retransmit now."""
    sks = net.sks
    if cold.ca_state >= CA_CWR and not before(sks.snd_una[sk], cold.high_seq):
        _end_recovery(net, sk, cold)
    if not sks.optbits[sk] & SACK_OK and not flag & ACK_UNA_ADVANCED and not flag & ACK_NOT_DUP:
        cold.sacked_out += 1
        tcp_limit_reno_sacked(cold)
        cold.dup_acks += 1
    elif flag & ACK_UNA_ADVANCED:
        cold.dup_acks = 0
    if cold.ca_state == CA_RECOVERY:
        if flag & ACK_UNA_ADVANCED and not sks.optbits[sk] & SACK_OK:
            cold.sacked_out = 0
            _mark_head_lost(cold)
        _mark_lost_by_sack(net, sk, cold)
        return True
    if cold.ca_state == CA_LOSS:
        return True
    if _enough_duplicates(net, sk, cold):
        _enter_recovery(net, sk, cold)
        return True
    if cold.ca_state != CA_CWR:
        cold.ca_state = CA_DISORDER if cold.sacked_out else CA_OPEN
        cold.high_seq = sks.snd_nxt[sk]
    return False


def tcp_limit_reno_sacked(cold: TcpCold) -> None:
    """Without SACK: duplicates count for no more segments than are in flight besides the holes."""
    holes = min(max(cold.lost_out, 1), len(cold.rtx))
    cold.sacked_out = min(cold.sacked_out, len(cold.rtx) - holes)


def _enough_duplicates(net: Net, sk: int, cold: TcpCold) -> bool:
    if net.sks.optbits[sk] & SACK_OK:
        return cold.sacked_out >= _DUP_THRESH
    return cold.dup_acks >= _DUP_THRESH


def _enter_recovery(net: Net, sk: int, cold: TcpCold) -> None:
    if net.sks.optbits[sk] & SACK_OK:
        net.mib.TcpExtTCPSackRecovery += 1
    else:
        net.mib.TcpExtTCPRenoRecovery += 1
    _reduce(net, sk, cold)
    cold.ca_state = CA_RECOVERY
    if not _mark_lost_by_sack(net, sk, cold):
        _mark_head_lost(cold)


def _reduce(net: Net, sk: int, cold: TcpCold) -> None:
    """Halve the window, once a round trip."""
    cold.high_seq = net.sks.snd_nxt[sk]
    cold.prior_ssthresh = tcp_ssthresh(net, sk)
    cold.prior_cwnd = net.sks.snd_cwnd[sk]
    net.sks.ssthresh[sk] = tcp_reno_ssthresh(net, sk)
    net.sks.snd_cwnd[sk] = net.sks.ssthresh[sk]
    net.sks.cwnd_cnt[sk] = 0
    net.sks.flags[sk] |= QUEUE_CWR


def _end_recovery(net: Net, sk: int, cold: TcpCold) -> None:
    """All that was in flight when it began is acknowledged."""
    if cold.ca_state == CA_RECOVERY or cold.ca_state == CA_CWR:
        net.sks.snd_cwnd[sk] = tcp_ssthresh(net, sk)
    if not net.sks.optbits[sk] & SACK_OK:
        cold.sacked_out = 0
    cold.dup_acks = 0
    cold.ca_state = CA_OPEN
    cold.undo_marker = 0
    net.sks.retrans_stamp[sk] = 0


def _mark_head_lost(cold: TcpCold) -> None:
    for seg in cold.rtx:
        if not seg.marks & SACKED:
            _mark_lost(cold, seg)
            return


def _mark_lost(cold: TcpCold, seg: Segment) -> None:
    if not seg.marks & (LOST | RETRANS):
        seg.marks |= LOST
        cold.lost_out += 1


def _mark_lost_by_sack(net: Net, sk: int, cold: TcpCold) -> bool:
    """Lost: every hole with three SACKed segments beyond it (RFC 6675, IsLost)."""
    if not net.sks.optbits[sk] & SACK_OK or cold.sacked_out < _DUP_THRESH:
        return False
    beyond = cold.sacked_out
    for seg in cold.rtx:
        if seg.marks & SACKED:
            beyond -= 1
            if beyond < _DUP_THRESH:
                break
        else:
            _mark_lost(cold, seg)
    return True


def tcp_enter_loss(net: Net, sk: int) -> None:
    """A timeout: all that is not SACKed counts as lost, the window is one segment (RFC 5681, 3.1)."""
    cold = cold_of(net, sk)
    sks = net.sks
    if cold is None:
        # Only the SYN: no queue; the window after the handshake is tcp_init_transfer's affair (RSP-28).
        return
    fresh = cold.ca_state <= CA_DISORDER or not after(cold.high_seq, sks.snd_una[sk])
    if fresh or (cold.ca_state == CA_LOSS and sks.retransmits[sk] == 0):
        cold.prior_ssthresh = tcp_ssthresh(net, sk)
        cold.prior_cwnd = sks.snd_cwnd[sk]
        sks.ssthresh[sk] = tcp_reno_ssthresh(net, sk)
    cold.retrans_out = 0
    cold.lost_out = 0
    if not sks.optbits[sk] & SACK_OK:
        cold.sacked_out = 0
    for seg in cold.rtx:
        seg.marks &= SACKED
        if not seg.marks:
            seg.marks = LOST
            cold.lost_out += 1
    sks.snd_cwnd[sk] = tcp_packets_in_flight(cold) + 1
    sks.cwnd_cnt[sk] = 0
    cold.ca_state = CA_LOSS
    cold.high_seq = sks.snd_nxt[sk]
    cold.tlp_high_seq = 0
    sks.flags[sk] |= QUEUE_CWR


def tcp_enter_cwr(net: Net, sk: int, cold: TcpCold) -> None:
    """The peer saw a congestion mark: as after a loss, without one (RFC 3168, 6.1.2)."""
    _reduce(net, sk, cold)
    cold.ca_state = CA_CWR


def tcp_process_tlp_ack(net: Net, sk: int, cold: TcpCold, flag: int) -> None:
    """The end of a loss probe: it repaired a loss (reduce), or the segment had arrived (nothing) (RFC 8985, 7.4)."""
    ack = net.rx_th.ack
    if before(ack, cold.tlp_high_seq):
        return
    if not cold.tlp_retrans or flag & ACK_DSACK:
        cold.tlp_high_seq = 0
    elif after(ack, cold.tlp_high_seq):
        _reduce(net, sk, cold)
        net.sks.snd_cwnd[sk] = max(net.sks.snd_cwnd[sk], 2)
        cold.tlp_high_seq = 0
    elif not flag & (ACK_UNA_ADVANCED | ACK_NOT_DUP):
        cold.tlp_high_seq = 0


def tcp_simple_retransmit(net: Net, sk: int, mss: int) -> None:
    """The path MTU shrank: what no longer fits is lost (net/ipv4/tcp_input.c:tcp_simple_retransmit)."""
    cold = cold_of(net, sk)
    if cold is None:
        return
    lost_before = cold.lost_out
    for seg in cold.rtx:
        if seg.length > mss and not seg.marks & SACKED:
            if seg.marks & RETRANS:
                seg.marks &= ~RETRANS
                cold.retrans_out -= 1
            _mark_lost(cold, seg)
    if cold.lost_out == lost_before:
        return
    if cold.ca_state != CA_LOSS:
        cold.high_seq = net.sks.snd_nxt[sk]
        net.sks.ssthresh[sk] = tcp_reno_ssthresh(net, sk)
        cold.ca_state = CA_LOSS
    tcp_xmit_retransmit_queue(net, sk)

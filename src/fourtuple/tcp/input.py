"""TCP input of a connection (net/ipv4/tcp_input.c): is the segment acceptable, and what it does in each state.

SYN_SENT has its own file (input_synsent.py), as have the acknowledgement (input_ack.py) and the payload
(input_data.py).  The segment is net.rx_th.  Answers: RCV_DONE, or RCV_RESET when the caller must send a RST for it.
"""

from __future__ import annotations

from fourtuple.inet.flags import DEAD
from fourtuple.kernel_map import FN_TCP_RCV_ESTABLISHED, FN_TCP_RCV_STATE_PROCESS
from fourtuple.tcp.close import tcp_shutdown
from fourtuple.tcp.constants import (
    EV_OUT,
    EV_STATE,
    RCV_DONE,
    RCV_RESET,
    TCP_MAX_QUICKACKS,
    TCP_TIMEWAIT_LEN,
)
from fourtuple.tcp.input_ack import tcp_ack, tcp_paws_check, tcp_rtt_by_timestamp, tcp_rtt_estimator, tcp_set_rto
from fourtuple.tcp.input_data import (
    tcp_ack_snd_check,
    tcp_data_queue,
    tcp_data_snd_check,
    tcp_enter_quickack_mode,
)
from fourtuple.tcp.input_synsent import (
    tcp_init_transfer,
    tcp_rcv_synsent_state_process,
    tcp_try_undo_spurious_syn,
)
from fourtuple.tcp.minisocks import (
    tcp_fin_time_us,
    tcp_time_wait,
)
from fourtuple.tcp.net import (
    Net,
    cold_get,
    cold_of,
    net_event,
    tcp_jiffies,
    tcp_reset_keepalive_timer,
)
from fourtuple.tcp.output import (
    tcp_initialize_rcv_mss,
    tcp_send_ack,
)
from fourtuple.tcp.sock import RCV_SHUTDOWN, SACK_OK, SEND_SHUTDOWN, TS_OK
from fourtuple.tcp.states import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_CLOSING,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT1,
    TCP_FIN_WAIT2,
    TCP_LAST_ACK,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCP_TIME_WAIT,
)
from fourtuple.tcp.tcp import tcp_done, tcp_reset, tcp_set_state
from fourtuple.tcp.window import (
    tcp_receive_window,
)
from fourtuple.trace import trace
from fourtuple.wire.seq import after, before
from fourtuple.wire.tcp import ACK, FIN, RST, SYN

_M32 = 0xFFFFFFFF
_INT_MAX = 0x7FFFFFFF

# Answers of tcp_sequence
_SEQ_OK = 0
_SEQ_OLD = 1
_SEQ_BEYOND = 2


# -- is it acceptable?


def _tcp_oow_rate_limited(net: Net, sk: int) -> bool:
    """Has this socket answered an unacceptable segment less than tcp_invalid_ratelimit ms ago?"""
    now = tcp_jiffies(net)
    last = net.oow_stamps.get(sk)
    if last is not None and (now - last) & _M32 < net.sysctl.tcp_invalid_ratelimit:
        return True
    net.oow_stamps[sk] = now
    return False


def tcp_send_challenge_ack(net: Net, sk: int) -> None:
    """RFC 5961: a segment that a blind attacker may have sent is answered by an ACK, within limits."""
    if _tcp_oow_rate_limited(net, sk):
        net.mib.TcpExtTCPACKSkippedChallenge += 1
        return
    limit = net.sysctl.tcp_challenge_ack_limit
    if limit != _INT_MAX:
        second = net.now_us // 1_000_000 & _M32
        if second != net.challenge_stamp:
            net.challenge_stamp = second
            net.challenge_count = 0
        if net.challenge_count >= limit:
            return
        net.challenge_count += 1
    net.mib.TcpExtTCPChallengeACK += 1
    tcp_send_ack(net, sk)


def tcp_send_dupack(net: Net, sk: int) -> None:
    """ACK a segment that is out of the window, with D-SACK if it is old data."""
    th = net.rx_th
    sks = net.sks
    end_seq = (th.seq + th.payload_len + (th.flags & FIN)) & _M32
    if end_seq != th.seq and before(th.seq, sks.rcv_nxt[sk]):
        net.mib.TcpExtDelayedACKLost += 1
        tcp_enter_quickack_mode(net, sk, TCP_MAX_QUICKACKS)
        if sks.optbits[sk] & SACK_OK and net.sysctl.tcp_dsack:
            cold = cold_get(net, sk)
            cold.dsack, cold.dsack_start, cold.dsack_end = True, th.seq, end_seq
            if after(end_seq, sks.rcv_nxt[sk]):
                cold.dsack_end = sks.rcv_nxt[sk]
            net.mib.TcpExtTCPDSACKOldSent += 1
    tcp_send_ack(net, sk)


def tcp_sequence(net: Net, sk: int, seq: int, end_seq: int) -> int:
    """RFC 9293, 3.10.7.4, first: does any of it fall into the window?"""
    sks = net.sks
    if before(end_seq, sks.rcv_wup[sk]):
        return _SEQ_OLD
    limit = (sks.rcv_nxt[sk] + tcp_receive_window(sks, sk)) & _M32
    if after(end_seq, limit):
        if after(seq, limit):
            return _SEQ_BEYOND
        cold = cold_of(net, sk)
        if cold is not None and cold.rcvq:
            net.mib.TcpExtBeyondWindow += 1
            return _SEQ_BEYOND
    return _SEQ_OK


def tcp_validate_incoming(net: Net, sk: int) -> bool:
    """PAWS, sequence, RST, SYN in this order (RFC 7323, 5.3; RFC 5961, 3 and 4); false: the segment is done with."""
    sks = net.sks
    th = net.rx_th
    if th.has_ts and sks.optbits[sk] & TS_OK and sks.ts_recent_stamp[sk]:
        if not th.flags & RST and not tcp_paws_check(net, sk, 0) and _paws_counts(net, sk):
            return _unacceptable(net, sk, True)
    end_seq = (th.seq + th.payload_len + (th.flags & FIN) + (th.flags >> 1 & 1)) & _M32
    if tcp_sequence(net, sk, th.seq, end_seq) != _SEQ_OK:
        if th.flags & RST:
            if _reset_after_fin(net, sk):
                tcp_reset(net, sk)
            return False
        return _unacceptable(net, sk, False)
    if th.flags & RST:
        if _rst_in_window(net, sk):
            tcp_reset(net, sk)
        else:
            tcp_send_challenge_ack(net, sk)
        return False
    if th.flags & SYN and not _completes_simultaneous_open(net, sk):
        net.mib.TcpExtTCPSYNChallenge += 1
        tcp_send_challenge_ack(net, sk)
        return False
    return True


def _unacceptable(net: Net, sk: int, paws: bool) -> bool:
    """Old timestamp, or out of the window: answer by an ACK that says where we are."""
    th = net.rx_th
    if th.flags & SYN and not (not paws and _completes_simultaneous_open(net, sk)):
        net.mib.TcpExtTCPSYNChallenge += 1
        tcp_send_challenge_ack(net, sk)
        return False
    if paws:
        net.mib.TcpExtPAWSEstab += 1
    # A data segment cannot be part of an ACK loop.
    if not th.payload_len and not th.flags & FIN and _tcp_oow_rate_limited(net, sk):
        if paws:
            net.mib.TcpExtTCPACKSkippedPAWS += 1
        else:
            net.mib.TcpExtTCPACKSkippedSeq += 1
    else:
        tcp_send_dupack(net, sk)
    return False


def _paws_counts(net: Net, sk: int) -> bool:
    """A reordered pure ACK with an old timestamp is no reason to reject (tcp_disordered_ack)."""
    th = net.rx_th
    sks = net.sks
    pure = th.payload_len == 0 and not th.flags & (FIN | SYN)
    if not (pure and th.seq == sks.rcv_nxt[sk] and th.flags & ACK and th.ack == sks.snd_una[sk]):
        return True
    nwin = th.window << (sks.wscales[sk] >> 4)
    updates = nwin > sks.snd_wnd[sk] or after(th.seq, sks.snd_wl1[sk])
    if updates:
        return True
    replay_ms = sks.rto[sk] * 12 // 10 // 1000
    return (sks.ts_recent[sk] - th.tsval) & _M32 > replay_ms


def _reset_after_fin(net: Net, sk: int) -> bool:
    """A RST one below rcv_nxt counts when that was the peer's FIN (tcp_reset_check)."""
    one_below = net.rx_th.seq == (net.sks.rcv_nxt[sk] - 1) & _M32
    return one_below and net.sks.sk_state[sk] in (TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_CLOSING)


def _rst_in_window(net: Net, sk: int) -> bool:
    """RFC 5961, 3.2: exactly rcv_nxt, or the end of the rightmost SACK block."""
    if net.rx_th.seq == net.sks.rcv_nxt[sk] or _reset_after_fin(net, sk):
        return True
    cold = cold_of(net, sk)
    if cold is None or not cold.ofo:
        return False
    return net.rx_th.seq == cold.ofo[len(cold.ofo) - 1][1]


def _completes_simultaneous_open(net: Net, sk: int) -> bool:
    """In SYN_RECV the peer's SYN-ACK is as good as an ACK (RSP-24)."""
    sks = net.sks
    th = net.rx_th
    return (
        sks.sk_state[sk] == TCP_SYN_RECV
        and th.flags & ACK != 0
        and th.payload_len == 0
        and (th.seq + 1) & _M32 == sks.rcv_nxt[sk]
        and th.ack == sks.snd_nxt[sk]
    )


# -- what it does


def tcp_rcv_established(net: Net, sk: int) -> int:
    """A segment in ESTABLISHED."""
    if net.tracer is not None:
        th = net.rx_th
        trace(net.tracer, FN_TCP_RCV_ESTABLISHED, sk, th.flags, th.seq, th.ack, th.payload_len)
    if not tcp_validate_incoming(net, sk):
        return RCV_DONE
    if not net.rx_th.flags & ACK:
        return RCV_DONE
    if tcp_ack(net, sk) < 0:
        tcp_send_challenge_ack(net, sk)
        return RCV_DONE
    tcp_data_queue(net, sk)
    _finish(net, sk)
    return RCV_DONE


def _finish(net: Net, sk: int) -> None:
    """Send what may be sent now, and the ACK that is owed, unless the socket is gone."""
    state = net.sks.sk_state[sk]
    if state and state != TCP_CLOSE:
        tcp_data_snd_check(net, sk)
        tcp_ack_snd_check(net, sk)


def tcp_rcv_state_process(net: Net, sk: int) -> int:
    """A segment in any state but ESTABLISHED, LISTEN and TIME_WAIT."""
    sks = net.sks
    state = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RCV_STATE_PROCESS, sk, state, net.rx_th.flags, net.rx_th.seq, net.rx_th.ack)
    if state == TCP_CLOSE:
        return RCV_DONE
    if state == TCP_SYN_SENT:
        return tcp_rcv_synsent_state_process(net, sk)
    if not tcp_validate_incoming(net, sk) or not net.rx_th.flags & ACK:
        return RCV_DONE
    answer = tcp_ack(net, sk)
    if answer <= 0:
        if state == TCP_SYN_RECV:
            return RCV_RESET
        if answer < 0:
            tcp_send_challenge_ack(net, sk)
            return RCV_DONE
    answer = _advance_state(net, sk, state)
    if answer >= 0:
        return answer
    return _segment_text(net, sk)


def _advance_state(net: Net, sk: int, state: int) -> int:
    """What the acknowledgement of our SYN or FIN leads to; RCV_* when the segment is used up, else -1."""
    sks = net.sks
    if state == TCP_SYN_RECV:
        _syn_recv_established(net, sk)
        return -1
    if sks.snd_una[sk] != sks.write_seq[sk]:
        return -1
    if state == TCP_FIN_WAIT1:
        return _fin_acknowledged(net, sk)
    if state == TCP_CLOSING:
        tcp_time_wait(net, sk, TCP_TIME_WAIT, 0)
        return RCV_DONE
    if state == TCP_LAST_ACK:
        tcp_done(net, sk)
        return RCV_DONE
    return -1


def _syn_recv_established(net: Net, sk: int) -> None:
    """SYN_RECV -> ESTABLISHED: a listener's child, or a simultaneous open."""
    sks = net.sks
    th = net.rx_th
    if sks.srtt[sk] == 0:
        sample = tcp_rtt_by_timestamp(net, sk) if sks.optbits[sk] & TS_OK else -1
        if sample > 0:
            tcp_rtt_estimator(net, sk, sample)
            tcp_set_rto(net, sk)
    if sks.optbits[sk] & TS_OK:
        sks.advmss[sk] -= 12
    tcp_try_undo_spurious_syn(net, sk)
    sks.retrans_stamp[sk] = 0
    tcp_init_transfer(net, sk)
    tcp_set_state(net, sk, TCP_ESTABLISHED)
    sks.snd_una[sk] = th.ack
    sks.snd_wnd[sk] = th.window if th.flags & SYN else th.window << (sks.wscales[sk] >> 4)
    sks.snd_wl1[sk] = th.seq
    sks.lsndtime[sk] = tcp_jiffies(net)
    tcp_initialize_rcv_mss(net, sk)
    net_event(net, sk, EV_STATE | EV_OUT)
    if sks.shutdown[sk] & SEND_SHUTDOWN:
        tcp_shutdown(net, sk, SEND_SHUTDOWN)


def _fin_acknowledged(net: Net, sk: int) -> int:
    """FIN_WAIT1 -> FIN_WAIT2; an orphan goes on without a socket, for tcp_fin_timeout at most."""
    sks = net.sks
    th = net.rx_th
    tcp_set_state(net, sk, TCP_FIN_WAIT2)
    sks.shutdown[sk] |= SEND_SHUTDOWN
    if not sks.flags[sk] & DEAD:
        net_event(net, sk, EV_STATE)
        return -1
    timeout = tcp_fin_time_us(net, sk)
    is_bare = th.payload_len == 0 and not th.flags & FIN  # then a sequence number ahead only says that a FIN was lost
    if timeout < 0 or (not is_bare and after((th.seq + th.payload_len) & _M32, sks.rcv_nxt[sk])):
        # TCP_LINGER2 < 0, or data for nobody
        net.mib.TcpExtTCPAbortOnData += 1
        tcp_done(net, sk)
        return RCV_RESET
    if timeout > TCP_TIMEWAIT_LEN:
        tcp_reset_keepalive_timer(net, sk, timeout - TCP_TIMEWAIT_LEN)
    elif th.flags & FIN:
        tcp_reset_keepalive_timer(net, sk, timeout)
    else:
        tcp_time_wait(net, sk, TCP_FIN_WAIT2, timeout)
        return RCV_DONE
    return -1


def _segment_text(net: Net, sk: int) -> int:
    """RFC 9293, 3.10.7.4, seventh and eighth: payload and FIN."""
    sks = net.sks
    th = net.rx_th
    state = sks.sk_state[sk]
    if state in (TCP_CLOSE_WAIT, TCP_CLOSING, TCP_LAST_ACK):
        usable = before(th.seq, sks.rcv_nxt[sk])
    else:
        usable = state in (TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2)
    if usable:
        if state != TCP_ESTABLISHED and sks.shutdown[sk] & RCV_SHUTDOWN:
            end = (th.seq + th.payload_len) & _M32
            if th.payload_len and after(end, sks.rcv_nxt[sk]):
                # Nobody will ever read it (RFC 1122, 4.2.2.13).
                net.mib.TcpExtTCPAbortOnData += 1
                tcp_reset(net, sk)
                return RCV_RESET
        tcp_data_queue(net, sk)
    _finish(net, sk)
    return RCV_DONE

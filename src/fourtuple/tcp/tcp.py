"""TCP's socket calls, first part (net/ipv4/tcp.c): birth, state, end and disconnection of a socket.

Not here: close() and shutdown() (close.py), data (sendmsg.py, recvmsg.py), poll and TCP_INFO (info.py), listening
(listen.py).

Rule: when an orphan (flag DEAD) is done its row is freed at once; a caller of tcp_done must not touch it afterwards.
"""

from __future__ import annotations

import errno

from fourtuple.inet.flags import DEAD, DONE
from fourtuple.inet.hashtables import inet_bhash2_reset_saddr, inet_put_port, inet_unhash
from fourtuple.inet.sock_table import sk_alloc
from fourtuple.kernel_map import FN_TCP_DISCONNECT, FN_TCP_DONE, FN_TCP_RESET, FN_TCP_SET_STATE
from fourtuple.tcp.constants import (
    EV_ERR,
    EV_IN,
    EV_OUT,
    EV_STATE,
)
from fourtuple.tcp.net import (
    Net,
    TcpCold,
    cold_drop,
    cold_of,
    cold_trim,
    net_event,
    tcp_clear_xmit_timers,
)
from fourtuple.tcp.output import tcp_send_active_reset
from fourtuple.tcp.sock import SHUTDOWN_MASK, TcpSockTable, sk_free
from fourtuple.tcp.states import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
    TCPF_CLOSE_WAIT,
    TCPF_CLOSING,
    TCPF_ESTABLISHED,
    TCPF_FIN_WAIT1,
    TCPF_FIN_WAIT2,
    TCPF_LAST_ACK,
    TCPF_SYN_RECV,
)
from fourtuple.trace import trace

_M32 = 0xFFFFFFFF
_ECONNRESET = errno.ECONNRESET
_BINDADDR_LOCK = 4
_BINDPORT_LOCK = 8

# States in which giving up must tell the peer (tcp_need_reset)
_NEED_RESET = TCPF_ESTABLISHED | TCPF_CLOSE_WAIT | TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2 | TCPF_SYN_RECV


def tcp_init_sock(net: Net) -> int:
    """A new socket in CLOSE: its row, or -ENOBUFS."""
    row = sk_alloc(net.sks)
    if row < 0:
        return row
    sk = row
    net.sks.sk_state[sk] = TCP_CLOSE
    net.sks.rto[sk] = net.initial_rto
    net.sks.snd_cwnd[sk] = net.init_cwnd
    net.sks.mss_cache[sk] = 536
    return row


def tcp_set_state(net: Net, sk: int, state: int) -> None:
    """Move a socket to `state`; CLOSE also takes it out of the tables, except for a port that bind() locked."""
    sks = net.sks
    old = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SET_STATE, sk, old, state)
    if state == TCP_ESTABLISHED:
        if old != TCP_ESTABLISHED:
            net.mib.TcpCurrEstab += 1
    elif state == TCP_CLOSE_WAIT:
        if old == TCP_SYN_RECV:
            net.mib.TcpCurrEstab += 1
    else:
        if old == TCP_ESTABLISHED or old == TCP_CLOSE_WAIT:
            net.mib.TcpCurrEstab -= 1
            if state == TCP_CLOSE:
                net.mib.TcpEstabResets += 1
        if state == TCP_CLOSE:
            inet_unhash(net.h, sk)
            if sks.num[sk] and not sks.userlocks[sk] & _BINDPORT_LOCK:
                inet_put_port(net.h, sk)
    sks.sk_state[sk] = state


def inet_csk_destroy_sock(net: Net, sk: int) -> None:
    """The last of an orphan in CLOSE: port, timers, queues and the row."""
    tcp_clear_xmit_timers(net, sk)
    inet_unhash(net.h, sk)
    if net.sks.num[sk]:
        inet_put_port(net.h, sk)
    cold_drop(net, sk)
    if net.oow_stamps:
        net.oow_stamps.pop(sk, None)
    if net.orphans:
        net.orphans -= 1
    sk_free(net.sks, sk)


def tcp_done(net: Net, sk: int) -> None:
    """The connection is over: CLOSE, no timers, both directions shut; an orphan is freed."""
    sks = net.sks
    state = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_DONE, sk, state, sks.err[sk])
    if state == TCP_SYN_SENT or state == TCP_SYN_RECV:
        net.mib.TcpAttemptFails += 1
    tcp_set_state(net, sk, TCP_CLOSE)
    tcp_clear_xmit_timers(net, sk)
    sks.shutdown[sk] = SHUTDOWN_MASK
    if sks.flags[sk] & DEAD:
        inet_csk_destroy_sock(net, sk)
    else:
        net_event(net, sk, EV_STATE | EV_IN | EV_OUT)


def tcp_done_with_error(net: Net, sk: int, error: int) -> None:
    """End the connection with an error that the next call reports."""
    net.sks.err[sk] = error
    cold = cold_of(net, sk)
    if cold is not None:
        tcp_write_queue_purge(net, sk, cold)
    if not net.sks.flags[sk] & DEAD:
        net_event(net, sk, EV_ERR)
    tcp_done(net, sk)


def tcp_write_queue_purge(net: Net, sk: int, cold: TcpCold) -> None:
    """Forget everything queued to be sent or in flight."""
    cold.rtx.clear()
    cold.sendq.clear()
    cold.sendq_bytes = 0
    cold.sacked_out = cold.lost_out = cold.retrans_out = 0
    cold.ca_state = 0
    cold.tlp_high_seq = 0
    cold_trim(net, sk)


def tcp_reset(net: Net, sk: int) -> None:
    """A valid RST arrived; the errno depends on the state (RSP-06, RSP-25)."""
    state = net.sks.sk_state[sk]
    if state == TCP_SYN_SENT:
        error = errno.ECONNREFUSED
    elif state == TCP_CLOSE_WAIT:
        error = errno.EPIPE
    elif state == TCP_CLOSE:
        return
    else:
        error = errno.ECONNRESET
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RESET, sk, state, error)
    tcp_done_with_error(net, sk, error)


def sock_error(net: Net, sk: int) -> int:
    """-errno of the pending error, which is cleared; 0 if there is none."""
    error = net.sks.err[sk]
    net.sks.err[sk] = 0
    return -error


def tcp_disconnect(net: Net, sk: int) -> int:
    """connect(AF_UNSPEC), SO_LINGER 0, a failed connect(): back to a socket that can connect again; always 0.

    The next initial sequence number goes on from here (ST-32, -33); an explicit bind stays (ST-22).
    """
    sks = net.sks
    old = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_DISCONNECT, sk, old)
    if old != TCP_CLOSE:
        tcp_set_state(net, sk, TCP_CLOSE)
    if old == TCP_LISTEN:
        _listen_stop(net, sk)
    elif 1 << old & _NEED_RESET or (sks.snd_nxt[sk] != sks.write_seq[sk] and 1 << old & (TCPF_CLOSING | TCPF_LAST_ACK)):
        tcp_send_active_reset(net, sk)
        sks.err[sk] = _ECONNRESET
    elif old == TCP_SYN_SENT:
        sks.err[sk] = _ECONNRESET
    tcp_clear_xmit_timers(net, sk)
    _purge_all(net, sk)
    _forget_peer(net, sk)
    if sks.err[sk]:
        net_event(net, sk, EV_STATE | EV_ERR)
    return 0


def _listen_stop(net: Net, sk: int) -> None:
    cold = cold_of(net, sk)
    if cold is not None and cold.listener is not None:
        cold.listener.stop(net)
        cold.listener = None


def _purge_all(net: Net, sk: int) -> None:
    """All queues but the error queue."""
    cold = cold_of(net, sk)
    if cold is None:
        return
    errq, waiting = cold.errq, cold.write_pending
    cold_drop(net, sk)
    if errq or waiting:
        fresh = TcpCold(net.sks.snd_una[sk])
        fresh.errq, fresh.write_pending = errq, waiting
        net.cold[sk] = fresh
        net.sks.flags[sk] |= 1 << 30


def _forget_peer(net: Net, sk: int) -> None:
    sks = net.sks
    sks.copied_seq[sk] = sks.rcv_nxt[sk]
    sks.dport[sk] = 0
    if not sks.userlocks[sk] & _BINDADDR_LOCK:
        inet_bhash2_reset_saddr(net.h, sk)
    sks.shutdown[sk] = 0
    sks.flags[sk] &= ~DONE & _M32
    sks.write_seq[sk] = (sks.write_seq[sk] + sks.max_window[sk] + 2) & _M32 or 1
    sks.rto[sk] = net.initial_rto
    sks.snd_cwnd[sk] = net.init_cwnd
    _forget_measures(sks, sk)
    sks.backoff[sk] = 0
    sks.probes[sk] = 0
    sks.window_clamp[sk] = 0
    sks.retransmits[sk] = 0
    sks.total_retrans[sk] = 0
    sks.total_rto[sk] = 0
    sks.optbits[sk] = 0
    sks.wscales[sk] = 0
    sks.ts_recent[sk] = 0
    sks.ts_recent_stamp[sk] = 0


def _forget_measures(sks: TcpSockTable, sk: int) -> None:
    """Round trips, congestion and what the receive buffer learnt."""
    sks.srtt[sk] = 0
    sks.mdev[sk] = 0
    sks.mdev_max[sk] = 0
    sks.rttvar[sk] = 0
    sks.ssthresh[sk] = 0
    sks.cwnd_cnt[sk] = 0
    sks.quick[sk] = 0
    sks.ato[sk] = 0
    sks.rcv_mss[sk] = 0
    sks.rcvq_space[sk] = 0
    sks.scaling_ratio[sk] = 0
    sks.rcvbuf[sk] = 0

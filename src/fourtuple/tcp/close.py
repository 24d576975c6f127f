"""TCP's socket calls: close() and shutdown() (net/ipv4/tcp.c)."""

from __future__ import annotations

from fourtuple.inet.flags import DEAD, LINGER, SOCKET_GONE
from fourtuple.kernel_map import FN_TCP_CLOSE, FN_TCP_SHUTDOWN
from fourtuple.tcp.constants import (
    TCP_TIMEWAIT_LEN,
)
from fourtuple.tcp.minisocks import (
    tcp_fin_time_us,
    tcp_time_wait,
)
from fourtuple.tcp.net import Net, cold_of, tcp_reset_keepalive_timer
from fourtuple.tcp.output import tcp_send_active_reset
from fourtuple.tcp.output_data import tcp_send_fin
from fourtuple.tcp.sock import SEND_SHUTDOWN, SHUTDOWN_MASK
from fourtuple.tcp.states import (
    ON_CLOSE,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_SYN_SENT,
)
from fourtuple.tcp.tcp import inet_csk_destroy_sock, tcp_disconnect, tcp_set_state
from fourtuple.trace import trace


def tcp_close_state(net: Net, sk: int) -> bool:
    """Move on because the application will send no more; true if a FIN is due (states.ON_CLOSE)."""
    state, fin = ON_CLOSE[net.sks.sk_state[sk]]
    tcp_set_state(net, sk, state)
    return fin


def tcp_shutdown(net: Net, sk: int, how: int) -> None:
    """Send a FIN if `how` has SEND_SHUTDOWN (the kernel's mask: SHUT_* + 1) and none was sent yet."""
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SHUTDOWN, sk, how, net.sks.sk_state[sk])
    if not how & SEND_SHUTDOWN:
        return
    if net.sks.sk_state[sk] in (TCP_ESTABLISHED, TCP_SYN_SENT, TCP_CLOSE_WAIT) and tcp_close_state(net, sk):
        tcp_send_fin(net, sk)


def tcp_close(net: Net, sk: int, linger: int) -> int:
    """The last descriptor is gone.  The row belongs to TCP now and is freed when the connection is over.

    Unread data or SO_LINGER 0: RST; in SYN_SENT silence (ST-11, -12); else FIN.  `linger` is not waited for here.
    """
    sks = net.sks
    sks.shutdown[sk] = SHUTDOWN_MASK
    state = sks.sk_state[sk]
    if net.tracer is not None:
        cold = cold_of(net, sk)
        trace(net.tracer, FN_TCP_CLOSE, sk, state, 0 if cold is None else cold.rcvq_bytes)
    if state == TCP_LISTEN:
        tcp_disconnect(net, sk)
    elif state != TCP_CLOSE:
        _close_connection(net, sk)
    sks.flags[sk] |= DEAD | SOCKET_GONE
    net.orphans += 1
    if sks.sk_state[sk] == TCP_FIN_WAIT2 and _orphan_fin_wait2(net, sk):
        return 0
    if sks.sk_state[sk] == TCP_CLOSE:
        inet_csk_destroy_sock(net, sk)
    return 0


def _close_connection(net: Net, sk: int) -> None:
    sks = net.sks
    cold = cold_of(net, sk)
    unread = cold is not None and cold.rcvq_bytes > 0
    if cold is not None:
        cold.rcvq.clear()
        cold.rcvq_bytes = 0
        cold.rcvq_sizes.clear()
        cold.rmem = 0
        cold.errq.clear()
    if unread:
        # RFC 2525, 2.17: data was lost, the peer must hear of it.
        net.mib.TcpExtTCPAbortOnClose += 1
        tcp_set_state(net, sk, TCP_CLOSE)
        tcp_send_active_reset(net, sk)
    elif sks.flags[sk] & LINGER and _lingers_not(net, sk):
        tcp_disconnect(net, sk)
        net.mib.TcpExtTCPAbortOnData += 1
    elif tcp_close_state(net, sk):
        tcp_send_fin(net, sk)


def _lingers_not(net: Net, sk: int) -> bool:
    """SO_LINGER of 0 seconds."""
    opts = net.sks.option_sets[net.sks.opts[sk]]
    return opts.linger_s == 0


def _orphan_fin_wait2(net: Net, sk: int) -> bool:
    """The FIN was acknowledged already: wait for the peer's without a socket; true if the row is gone."""
    timeout = tcp_fin_time_us(net, sk)
    if timeout < 0:
        tcp_set_state(net, sk, TCP_CLOSE)
        tcp_send_active_reset(net, sk)
        net.mib.TcpExtTCPAbortOnLinger += 1
    elif timeout > TCP_TIMEWAIT_LEN:
        tcp_reset_keepalive_timer(net, sk, timeout - TCP_TIMEWAIT_LEN)
    else:
        tcp_time_wait(net, sk, TCP_FIN_WAIT2, timeout)
        return True
    return False

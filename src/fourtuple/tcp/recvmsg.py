"""TCP's socket calls: receiving (net/ipv4/tcp.c: tcp_recvmsg, tcp_cleanup_rbuf)."""

from __future__ import annotations

import errno

from fourtuple.inet.flags import DONE, PINGPONG
from fourtuple.ip.netns import net_refresh
from fourtuple.kernel_map import FN_TCP_RECVMSG
from fourtuple.tcp.input_data import tcp_rcv_space_adjust
from fourtuple.tcp.net import Net, TcpCold, cold_of, cold_trim
from fourtuple.tcp.output import (
    tcp_send_ack,
)
from fourtuple.tcp.sock import ACK_PUSHED, ACK_PUSHED2, ACK_SCHED, RCV_SHUTDOWN
from fourtuple.tcp.states import TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN
from fourtuple.tcp.tcp import sock_error
from fourtuple.tcp.window import (
    _tcp_select_window,
    tcp_receive_window,
)
from fourtuple.trace import trace

_M32 = 0xFFFFFFFF
MSG_PEEK = 2


def tcp_recvmsg(net: Net, sk: int, size: int, flags: int) -> bytes | int:
    """Up to `size` bytes of what has arrived, b"" at the end of the stream, or -errno (-EAGAIN: nothing yet)."""
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RECVMSG, sk, size, net.sks.sk_state[sk])
    if net.sks.sk_state[sk] == TCP_LISTEN:
        return -errno.ENOTCONN
    cold = cold_of(net, sk)
    if cold is not None and cold.rcvq and size > 0:
        if flags & MSG_PEEK:
            return _peek(cold, size)
        net_refresh(net)
        return _take(net, sk, cold, size)
    if net.sks.flags[sk] & DONE:
        return b""
    error = sock_error(net, sk)
    if error:
        return error
    if net.sks.shutdown[sk] & RCV_SHUTDOWN:
        return b""
    if net.sks.sk_state[sk] == TCP_CLOSE:
        return -errno.ENOTCONN
    return b"" if size == 0 else -errno.EAGAIN


def _take(net: Net, sk: int, cold: TcpCold, size: int) -> bytes:
    """Remove up to `size` bytes; the window may open.  A packet's memory is free once all of it is read."""
    parts = []
    left = size
    while left and cold.rcvq:
        part: bytes = cold.rcvq.popleft()
        if len(part) > left:
            cold.rcvq.appendleft(part[left:])
            part = part[:left]
        else:
            cold.rmem -= cold.rcvq_sizes.popleft()
        parts.append(part)
        left -= len(part)
    taken = parts[0] if len(parts) == 1 else b"".join(parts)
    cold.rcvq_bytes -= len(taken)
    net.sks.copied_seq[sk] = (net.sks.copied_seq[sk] + len(taken)) & _M32
    tcp_rcv_space_adjust(net, sk)
    tcp_cleanup_rbuf(net, sk, len(taken))
    cold_trim(net, sk)
    return taken


def _peek(cold: TcpCold, size: int) -> bytes:
    parts = []
    for part in cold.rcvq:
        if size <= 0:
            break
        parts.append(part[:size])
        size -= len(part)
    return b"".join(parts)


def tcp_cleanup_rbuf(net: Net, sk: int, copied: int) -> None:
    """After a read: send the ACK that waited for it, or tell that the window has at least doubled."""
    sks = net.sks
    state = sks.sk_state[sk]
    if state == TCP_CLOSE:
        return
    if sks.flags[sk] & ACK_SCHED:
        if (sks.rcv_nxt[sk] - sks.rcv_wup[sk]) & _M32 > sks.rcv_mss[sk] or (copied > 0 and _drained(net, sk)):
            tcp_send_ack(net, sk)
            return
    if copied > 0 and not sks.shutdown[sk] & RCV_SHUTDOWN:
        now = tcp_receive_window(sks, sk)
        if 2 * now <= sks.window_clamp[sk]:
            window = _tcp_select_window(net, sk)
            if window and window >= 2 * now:
                tcp_send_ack(net, sk)


def _drained(net: Net, sk: int) -> bool:
    """The peer pushed, the application has read it all, and answers nothing: it may be waiting for the ACK."""
    flags = net.sks.flags[sk]
    cold = cold_of(net, sk)
    if cold is not None and cold.rcvq_bytes + cold.ofo_bytes:
        return False
    return bool(flags & ACK_PUSHED2 or (flags & ACK_PUSHED and not flags & PINGPONG))


def tcp_sock_set_quickack(net: Net, sk: int, value: int) -> None:
    """TCP_QUICKACK: 0 delays ACKs from now on, else one that is owed leaves now; even numbers then delay (RSP-29)."""
    if value == 0:
        net.sks.flags[sk] |= PINGPONG
        return
    net.sks.flags[sk] &= ~PINGPONG & _M32
    if net.sks.sk_state[sk] in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) and net.sks.flags[sk] & ACK_SCHED:
        net.sks.flags[sk] |= ACK_PUSHED
        net_refresh(net)
        tcp_cleanup_rbuf(net, sk, 1)
        if not value & 1:
            net.sks.flags[sk] |= PINGPONG

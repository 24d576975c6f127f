"""The receive window (net/ipv4/tcp_output.c): what the SYN offers, what each later segment advertises.

The receive buffer is counted in the memory that the kernel would take for the packets in it (skb_truesize), and a
ratio says what window that memory is worth.
"""

from __future__ import annotations

from fourtuple.tcp.net import Net
from fourtuple.tcp.sock import HAS_COLD, TcpSockTable

_M32 = 0xFFFFFFFF
_U16_MAX = 65535
_MAX_TCP_WINDOW = 32767  # the largest that a signed 16-bit reader understands


def sk_rcvbuf(net: Net, sk: int) -> int:
    """sk_rcvbuf: what tuning made of it, else SO_RCVBUF, else tcp_rmem[1]."""
    if net.sks.rcvbuf[sk]:
        return net.sks.rcvbuf[sk]
    opts = net.sks.option_sets[net.sks.opts[sk]]
    return opts.rcvbuf if opts.rcvbuf else net.sysctl.tcp_rmem_default


def tcp_win_from_space(sks: TcpSockTable, sk: int, space: int) -> int:
    """Window that `space` bytes of receive buffer are worth; half until a full segment has shown the overhead."""
    ratio = sks.scaling_ratio[sk]
    return space * (ratio if ratio else 128) >> 8


def skb_truesize(length: int) -> int:
    """Memory that the kernel takes for a packet of `length` bytes from a TUN device: its buffer and struct sk_buff."""
    size = ((length + 66 + 63) & ~63) + 320
    bucket = 512
    while bucket < size:
        bucket <<= 1
    return bucket + 256


def tcp_full_space(net: Net, sk: int) -> int:
    """Window that the whole receive buffer is worth."""
    return tcp_win_from_space(net.sks, sk, sk_rcvbuf(net, sk))


def tcp_space(net: Net, sk: int) -> int:
    """Window that the free part of the receive buffer is worth; may be negative."""
    free = sk_rcvbuf(net, sk)
    if net.sks.flags[sk] & HAS_COLD:
        cold = net.cold[sk]
        free -= cold.rmem
    return tcp_win_from_space(net.sks, sk, free)


def tcp_select_initial_window(net: Net, sk: int, space: int, mss: int, wscale_ok: bool, init_rcv_wnd: int) -> int:
    """Choose rcv_wnd and window_clamp, return the window scale to offer (SYN-10..13, -20, -22).

    The window is a whole number of segments; the scale follows the largest buffer this host may ever use.
    """
    clamp = net.sks.window_clamp[sk]
    if clamp == 0:
        clamp = _U16_MAX << 14
    if space > clamp:
        space = clamp
    if space > mss:
        space -= space % mss
    window = space
    if net.sysctl.tcp_workaround_signed_windows and window > _MAX_TCP_WINDOW:
        window = _MAX_TCP_WINDOW
    elif net.first_window_max != 0 and window > net.first_window_max:
        window = net.first_window_max
    scale = 0
    if wscale_ok:
        scale = _wscale_for(min(max(space, net.sysctl.tcp_rmem_max, net.sysctl.rmem_max), clamp))
    segments = init_rcv_wnd
    if segments == 0 and net.first_window != 0 and mss > 1 << scale:
        segments = tcp_default_init_rwnd(net.first_window, mss)
    wide = segments
    wide *= mss
    if segments != 0 and window > wide:
        window = wide
    net.sks.rcv_wnd[sk] = window
    wide = _U16_MAX << scale
    net.sks.window_clamp[sk] = wide if wide < clamp else clamp
    return scale


def tcp_default_init_rwnd(segments: int, mss: int) -> int:
    """Segments of the first window before 4.20: as many bytes as so many Ethernet frames hold, two at least.

    2.6.32 has a rule of its own for large segments: 4, 3 or 2 of them.
    """
    if mss <= 1460:
        return segments
    if segments == 4:
        return 2 if mss > 3 * 1460 else 3
    fewer = 1460 * segments // mss
    return fewer if fewer > 2 else 2


def _wscale_for(space: int) -> int:
    """ilog2(space) - 15, within 0..14 (RFC 7323, 2.3)."""
    bits = 0
    while bits < 14 and space >> (bits + 16):
        bits += 1
    return bits


def tcp_receive_window(sks: TcpSockTable, sk: int) -> int:
    """What is left of the window last advertised."""
    wide = sks.rcv_wup[sk]
    wide += sks.rcv_wnd[sk]
    right = (wide - sks.rcv_nxt[sk]) & _M32
    return 0 if right >> 31 else right


def tcp_select_window(net: Net, sk: int) -> int:
    """The window field of the next segment; a window once offered is never taken back."""
    sks = net.sks
    scale = sks.wscales[sk] & 15
    old_win = sks.rcv_wnd[sk]
    cur_win = tcp_receive_window(sks, sk)
    new_win = _tcp_select_window(net, sk)
    if new_win < cur_win and not (net.sysctl.tcp_shrink_window and scale):
        if new_win == 0:
            net.mib.TcpExtTCPWantZeroWindowAdv += 1
        wide = 1 << scale
        new_win = ((cur_win + wide - 1) >> scale) << scale
    sks.rcv_wnd[sk] = new_win
    sks.rcv_wup[sk] = sks.rcv_nxt[sk]
    limit = _U16_MAX
    if scale == 0 and net.sysctl.tcp_workaround_signed_windows:
        limit = _MAX_TCP_WINDOW
    limit <<= scale
    if new_win > limit:
        new_win = limit
    new_win >>= scale
    if new_win == 0 and old_win:
        net.mib.TcpExtTCPToZeroWindowAdv += 1
    elif old_win == 0 and new_win:
        net.mib.TcpExtTCPFromZeroWindowAdv += 1
    return new_win


def _tcp_select_window(net: Net, sk: int) -> int:
    """Room to offer, by the free part of the buffer; 0 when it is not worth a segment (RFC 9293, 3.8.6)."""
    sks = net.sks
    mss = sks.rcv_mss[sk]
    free_space = tcp_space(net, sk)
    allowed = tcp_full_space(net, sk)
    full = sks.window_clamp[sk]
    if full > allowed:
        full = allowed
    if mss > full:
        mss = full
        if mss == 0:
            return 0
    if free_space < 0:
        free_space = 0
    scale = sks.wscales[sk] & 15
    unit = 1 << scale
    if free_space < full >> 1:
        sks.quick[sk] = 0
        free_space = (free_space >> scale) << scale
        if free_space < allowed >> 4 or free_space < mss:
            return 0
    if free_space > sks.rcv_ssthresh[sk]:
        free_space = sks.rcv_ssthresh[sk]
    if scale:
        return ((free_space + unit - 1) >> scale) << scale
    return _unscaled_window(sks, sk, free_space, mss, full)


def _unscaled_window(sks: TcpSockTable, sk: int, free_space: int, mss: int, full: int) -> int:
    """Without scaling: whole segments, and no move for less than one."""
    window = sks.rcv_wnd[sk]
    if window <= free_space - mss or window > free_space:
        return free_space // mss * mss if mss > 0 else free_space
    if mss == full and free_space > window + (full >> 1):
        return free_space
    return window

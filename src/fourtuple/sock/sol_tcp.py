"""The options at IPPROTO_TCP (net/ipv4/tcp.c: do_tcp_setsockopt, do_tcp_getsockopt)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

from fourtuple.inet import flags as fl
from fourtuple.sock.file import Socket, Task
from fourtuple.sock.option_kinds import (
    INT_MAX,
    IPPROTO_TCP,
    Option,
    Setter,
    field_option,
    flag_option,
    in_states,
    kept,
    number_option,
    options_of,
    pack_int,
    read_only,
    set_flag,
    store,
)
from fourtuple.sock.sol_socket import SOCK_MIN_RCVBUF
from fourtuple.tcp.info import tcp_get_info
from fourtuple.tcp.net import tcp_jiffies, tcp_reset_keepalive_timer
from fourtuple.tcp.output_data import tcp_push_pending_frames
from fourtuple.tcp.recvmsg import tcp_sock_set_quickack
from fourtuple.tcp.sock import last_ack_time
from fourtuple.tcp.states import TCP_CLOSE, TCPF_CLOSE, TCPF_CLOSE_WAIT, TCPF_ESTABLISHED, TCPF_LISTEN

# include/uapi/linux/tcp.h
TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_LINGER2 = range(1, 9)
TCP_DEFER_ACCEPT, TCP_WINDOW_CLAMP, TCP_INFO, TCP_QUICKACK, TCP_CONGESTION, TCP_MD5SIG = range(9, 15)
TCP_THIN_LINEAR_TIMEOUTS, TCP_THIN_DUPACK, TCP_USER_TIMEOUT, TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = range(16, 22)
TCP_FASTOPEN, TCP_TIMESTAMP, TCP_NOTSENT_LOWAT, TCP_CC_INFO, TCP_SAVE_SYN, TCP_SAVED_SYN = range(23, 29)
TCP_FASTOPEN_CONNECT, TCP_ULP, TCP_MD5SIG_EXT, TCP_FASTOPEN_KEY, TCP_FASTOPEN_NO_COOKIE = range(30, 35)
TCP_INQ, TCP_TX_DELAY, TCP_IS_MPTCP, TCP_RTO_MAX_MS, TCP_RTO_MIN_US, TCP_DELACK_MAX_US = 36, 37, 43, 44, 45, 46

# include/net/tcp.h
TCP_MIN_MSS = 88
MAX_TCP_WINDOW = 32767
TCP_MSS_DEFAULT = 536
MAX_TCP_KEEPIDLE = MAX_TCP_KEEPINTVL = 32767
MAX_TCP_KEEPCNT = MAX_TCP_SYNCNT = 127
TCP_FIN_TIMEOUT_MAX_S = 120
TCP_RTO_MAX_SEC = 120
TFO_CLIENT_ENABLE = 1
TCP_MD5SIG_MAXKEYLEN = 80
TCP_MD5SIG_FLAG_PREFIX = 1
CONGESTION_NAME_MAX = 16
SEND_QUEUE, RECV_QUEUE = 2, 1


def _idle_us(sock: Socket) -> int:
    """Since data or an ACK came (keepalive_time_elapsed)."""
    sks, sk, now = sock.net.sks, sock.sk, tcp_jiffies(sock.net)
    return min((now - sks.lrcvtime[sk]) & 0xFFFFFFFF, (now - last_ack_time(sks, sk)) & 0xFFFFFFFF) * 1000


def _tcp_keepidle(task: Task, sock: Socket, number: int) -> int:
    """A timer that runs already is set anew, for what is left of the new time (tcp_sock_set_keepidle_locked)."""
    if not 1 <= number <= MAX_TCP_KEEPIDLE:
        return -errno.EINVAL
    err = store(sock, keepidle_s=number)
    net, sk = sock.net, sock.sk
    if err == 0 and net.sks.flags[sk] & fl.KEEPOPEN and not in_states(sock, TCPF_CLOSE | TCPF_LISTEN):
        tcp_reset_keepalive_timer(net, sk, max(number * 1_000_000 - _idle_us(sock), 0))
    return err


def _tcp_maxseg(task: Task, sock: Socket, number: int) -> int:
    if number != 0 and not TCP_MIN_MSS <= number <= MAX_TCP_WINDOW:
        return -errno.EINVAL
    return store(sock, user_mss=number)


def _get_maxseg(sock: Socket) -> int:
    # Without a connection the kernel shows what the user asked for.
    if in_states(sock, TCPF_CLOSE | TCPF_LISTEN) and options_of(sock).user_mss:
        return options_of(sock).user_mss
    return sock.net.sks.mss_cache[sock.sk] or TCP_MSS_DEFAULT


def _tcp_linger2(task: Task, sock: Socket, number: int) -> int:
    return store(sock, linger2_s=-1 if number < 0 else min(number, TCP_FIN_TIMEOUT_MAX_S))


def _get_linger2(sock: Socket) -> int:
    return options_of(sock).linger2_s or sock.net.sysctl.tcp_fin_timeout


def defer_accept_seconds(seconds: int) -> int:
    """TCP_DEFER_ACCEPT counts retransmissions of the SYN-ACK: the whole rounds that hold `seconds`."""
    total, timeout, rounds = 0, 1, 0
    while total < seconds and rounds < 255:
        total += timeout
        timeout = min(timeout * 2, TCP_RTO_MAX_SEC)
        rounds += 1
    return total


def _tcp_window_clamp(task: Task, sock: Socket, number: int) -> int:
    if number == 0:
        if not in_states(sock, TCPF_CLOSE):
            return -errno.EINVAL
        clamp = 0
    else:
        clamp = max(number, SOCK_MIN_RCVBUF // 2)
    sock.net.sks.window_clamp[sock.sk] = clamp
    return store(sock, window_clamp=clamp)


def _get_info(task: Task, sock: Socket, size: int) -> bytes:
    return tcp_get_info(sock.net, sock.sk)


def _tcp_quickack(task: Task, sock: Socket, number: int) -> int:
    tcp_sock_set_quickack(sock.net, sock.sk, number)
    return 0


def _set_congestion(task: Task, sock: Socket, value: bytes) -> int:
    if not value:
        return -errno.EINVAL
    name = value[: CONGESTION_NAME_MAX - 1].split(b"\0")[0].decode("ascii", "replace")
    if name not in task.net.sysctl.tcp_available_congestion_control.split():
        return -errno.ENOENT
    return store(sock, congestion=name)


def _get_congestion(task: Task, sock: Socket, size: int) -> bytes:
    name = options_of(sock).congestion or sock.net.sysctl.tcp_congestion_control
    return str(name).encode().ljust(CONGESTION_NAME_MAX, b"\0")


def _md5(flags_count: bool) -> Setter:
    """struct tcp_md5sig: address (128), flags, prefix length, key length, ifindex, key (80)."""

    def set_(task: Task, sock: Socket, value: bytes) -> int:
        if len(value) < 216:
            return -errno.EINVAL
        family, address = struct.unpack_from("=H", value)[0], struct.unpack_from("!I", value, 4)[0]
        flags, prefixlen, keylen = struct.unpack_from("=BBH", value, 128)
        if family != 2 or keylen > TCP_MD5SIG_MAXKEYLEN:
            return -errno.EINVAL
        if not (flags_count and flags & TCP_MD5SIG_FLAG_PREFIX):
            prefixlen = 32
        return _change_md5_key(sock, address, prefixlen, value[136 : 136 + keylen])

    return set_


def _change_md5_key(sock: Socket, address: int, prefixlen: int, key: bytes) -> int:
    """Add, replace, or with an empty key remove one."""
    if prefixlen > 32:
        return -errno.EINVAL
    keys = options_of(sock).md5_keys
    rest = tuple(entry for entry in keys if entry[:2] != (address, prefixlen))
    if not key and len(rest) == len(keys):
        return -errno.ENOENT
    return store(sock, md5_keys=(*rest, (address, prefixlen, key)) if key else rest)


def _tcp_repair(task: Task, sock: Socket, number: int) -> int:
    if not task.cap_net_admin or in_states(sock, TCPF_LISTEN):
        return -errno.EPERM
    if not -1 <= number <= 1:
        return -errno.EINVAL
    set_flag(sock, fl.REPAIR, number == 1)
    sock.kept_options.pop((IPPROTO_TCP, TCP_REPAIR_QUEUE), None)
    return 0


def _in_repair(sock: Socket) -> bool:
    return bool(sock.net.sks.flags[sock.sk] & fl.REPAIR)


def _tcp_repair_queue(task: Task, sock: Socket, number: int) -> int:
    if not _in_repair(sock):
        return -errno.EPERM
    if not 0 <= number <= SEND_QUEUE:
        return -errno.EINVAL
    sock.kept_options[IPPROTO_TCP, TCP_REPAIR_QUEUE] = number
    return 0


def _get_repair_queue(task: Task, sock: Socket, size: int) -> bytes | int:
    if not _in_repair(sock):
        return -errno.EINVAL
    return pack_int(sock.kept_options.get((IPPROTO_TCP, TCP_REPAIR_QUEUE), 0))


def _tcp_queue_seq(task: Task, sock: Socket, number: int) -> int:
    queue = sock.kept_options.get((IPPROTO_TCP, TCP_REPAIR_QUEUE), 0)
    sks, sk = sock.net.sks, sock.sk
    if sks.sk_state[sk] != TCP_CLOSE:
        return -errno.EPERM
    if queue == SEND_QUEUE:
        sks.write_seq[sk] = number & 0xFFFFFFFF
    elif queue == RECV_QUEUE:
        sks.rcv_nxt[sk] = sks.copied_seq[sk] = number & 0xFFFFFFFF
    else:
        return -errno.EINVAL
    return 0


def _get_queue_seq(task: Task, sock: Socket, size: int) -> bytes | int:
    queue = sock.kept_options.get((IPPROTO_TCP, TCP_REPAIR_QUEUE), 0)
    if queue == 0:
        return -errno.EINVAL
    sks, sk = sock.net.sks, sock.sk
    return pack_int(sks.write_seq[sk] if queue == SEND_QUEUE else sks.rcv_nxt[sk])


def _tcp_timestamp(task: Task, sock: Socket, number: int) -> int:
    if not _in_repair(sock):
        return -errno.EPERM
    sock.net.sks.ts_offset[sock.sk] = (number - sock.net.now_us // 1000) & 0xFFFFFFFF
    return 0


def _get_timestamp(sock: Socket) -> int:
    return (sock.net.now_us // 1000 + sock.net.sks.ts_offset[sock.sk]) & 0xFFFFFFFF


def _tcp_fastopen(task: Task, sock: Socket, number: int) -> int:
    if number < 0 or not in_states(sock, TCPF_CLOSE | TCPF_LISTEN):
        return -errno.EINVAL
    sock.kept_options[IPPROTO_TCP, TCP_FASTOPEN] = min(number, task.net.sysctl.somaxconn)
    return 0


def _tcp_fastopen_connect(task: Task, sock: Socket, number: int) -> int:
    """Kept, but no cookie is asked for: the connection is an ordinary one."""
    if not 0 <= number <= 1:
        return -errno.EINVAL
    if not task.net.sysctl.tcp_fastopen & TFO_CLIENT_ENABLE:
        return -errno.EOPNOTSUPP
    if not in_states(sock, TCPF_CLOSE):
        return -errno.EINVAL
    sock.kept_options[IPPROTO_TCP, TCP_FASTOPEN_CONNECT] = number
    return 0


def _tcp_fastopen_no_cookie(task: Task, sock: Socket, number: int) -> int:
    if not 0 <= number <= 1 or not in_states(sock, TCPF_CLOSE | TCPF_LISTEN):
        return -errno.EINVAL
    sock.kept_options[IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE] = number
    return 0


def _tcp_rto_max_ms(task: Task, sock: Socket, number: int) -> int:
    """Kept in ticks, so rounded up to one."""
    if not 1000 <= number <= TCP_RTO_MAX_SEC * 1000:
        return -errno.EINVAL
    tick_ms = 1000 // task.net.sysctl.profile.hz
    return store(sock, rto_max_ms=-(-number // tick_ms) * tick_ms)


def _push_if(when: bool) -> Callable[[Socket, bool], object]:
    """Nodelay on, or cork off, sends what was held back."""

    def push(sock: Socket, on: bool) -> None:
        if on == when and in_states(sock, TCPF_ESTABLISHED | TCPF_CLOSE_WAIT):
            tcp_push_pending_frames(sock.net, sock.sk, bool(sock.net.sks.flags[sock.sk] & fl.NODELAY))

    return push


def _kept_tcp(name: int) -> Callable[[Socket], int]:
    return lambda sock: sock.kept_options.get((IPPROTO_TCP, name), 0)


TCP_OPTIONS = {
    TCP_NODELAY: flag_option(fl.NODELAY, _push_if(True)),
    TCP_MAXSEG: number_option(_tcp_maxseg, _get_maxseg),
    TCP_CORK: flag_option(fl.CORK, _push_if(False)),
    TCP_KEEPIDLE: number_option(
        _tcp_keepidle, lambda sock: options_of(sock).keepidle_s or sock.net.sysctl.tcp_keepalive_time
    ),
    TCP_KEEPINTVL: field_option("keepintvl_s", 1, MAX_TCP_KEEPINTVL, lambda sock: sock.net.sysctl.tcp_keepalive_intvl),
    TCP_KEEPCNT: field_option("keepcnt", 1, MAX_TCP_KEEPCNT, lambda sock: sock.net.sysctl.tcp_keepalive_probes),
    TCP_SYNCNT: field_option("syn_retries", 1, MAX_TCP_SYNCNT, lambda sock: sock.net.sysctl.tcp_syn_retries),
    TCP_LINGER2: number_option(_tcp_linger2, _get_linger2),
    TCP_DEFER_ACCEPT: kept(IPPROTO_TCP, TCP_DEFER_ACCEPT, change=defer_accept_seconds),
    TCP_WINDOW_CLAMP: number_option(_tcp_window_clamp, lambda sock: sock.net.sks.window_clamp[sock.sk]),
    TCP_INFO: Option(None, _get_info),
    TCP_QUICKACK: number_option(_tcp_quickack, lambda sock: 0 if sock.net.sks.flags[sock.sk] & fl.PINGPONG else 1),
    TCP_CONGESTION: Option(_set_congestion, _get_congestion),
    TCP_MD5SIG: Option(_md5(False), None),
    TCP_MD5SIG_EXT: Option(_md5(True), None),
    TCP_THIN_LINEAR_TIMEOUTS: kept(IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0, 1),
    TCP_THIN_DUPACK: kept(IPPROTO_TCP, TCP_THIN_DUPACK, 0, 1, change=lambda number: 0),
    TCP_USER_TIMEOUT: field_option("user_timeout_ms", 0, INT_MAX),
    TCP_REPAIR: number_option(_tcp_repair, lambda sock: 1 if _in_repair(sock) else 0),
    TCP_REPAIR_QUEUE: Option(number_option(_tcp_repair_queue, _kept_tcp(TCP_REPAIR_QUEUE)).set, _get_repair_queue),
    TCP_QUEUE_SEQ: Option(number_option(_tcp_queue_seq, _kept_tcp(TCP_QUEUE_SEQ)).set, _get_queue_seq),
    TCP_FASTOPEN: number_option(_tcp_fastopen, _kept_tcp(TCP_FASTOPEN)),
    TCP_TIMESTAMP: number_option(_tcp_timestamp, _get_timestamp),
    TCP_NOTSENT_LOWAT: kept(IPPROTO_TCP, TCP_NOTSENT_LOWAT),
    TCP_CC_INFO: Option(None, lambda task, sock, size: b""),  # reno and cubic have none
    TCP_SAVE_SYN: kept(IPPROTO_TCP, TCP_SAVE_SYN, 0, 2),
    TCP_SAVED_SYN: Option(None, lambda task, sock, size: b""),
    TCP_FASTOPEN_CONNECT: number_option(_tcp_fastopen_connect, _kept_tcp(TCP_FASTOPEN_CONNECT)),
    TCP_ULP: Option(lambda task, sock, value: -errno.ENOENT if value else -errno.EINVAL, lambda task, sock, size: b""),
    TCP_FASTOPEN_KEY: Option(lambda task, sock, value: -errno.EINVAL, lambda task, sock, size: b""),
    TCP_FASTOPEN_NO_COOKIE: number_option(_tcp_fastopen_no_cookie, _kept_tcp(TCP_FASTOPEN_NO_COOKIE)),
    TCP_INQ: kept(IPPROTO_TCP, TCP_INQ, 0, 1),
    TCP_TX_DELAY: kept(IPPROTO_TCP, TCP_TX_DELAY, 0, INT_MAX // 1024),
    TCP_IS_MPTCP: read_only(lambda sock: 0),
    TCP_RTO_MAX_MS: number_option(
        _tcp_rto_max_ms, lambda sock: options_of(sock).rto_max_ms or sock.net.sysctl.tcp_rto_max_ms
    ),
}

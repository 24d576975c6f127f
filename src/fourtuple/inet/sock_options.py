"""SockOptions: the socket options that carry a value, as interned immutable sets.

A connection stores a 16-bit index; nearly all sockets of a program share one or two sets, so an option costs nothing
per connection.  Single-bit options are in the `flags` column (inet/flags.py).  0 means "not set: the sysctl or route
decides", as in the kernel, except where a field says otherwise.
"""

from __future__ import annotations

FIELDS: dict[str, object] = {
    "port_low": 0,  # IP_LOCAL_PORT_RANGE, low half
    "port_high": 0,  # IP_LOCAL_PORT_RANGE, high half
    "uid": 0,  # sk_uid: who made the socket
    "mark": 0,  # SO_MARK
    "ttl": -1,  # IP_TTL; -1: net.ipv4.ip_default_ttl
    "tos": 0,  # IP_TOS
    "mtu_discover": 1,  # IP_MTU_DISCOVER, IP_PMTUDISC_WANT
    "min_ttl": 0,  # IP_MINTTL
    "user_mss": 0,  # TCP_MAXSEG
    "syn_retries": 0,  # TCP_SYNCNT
    "user_timeout_ms": 0,  # TCP_USER_TIMEOUT
    "rto_max_ms": 0,  # TCP_RTO_MAX_MS
    "window_clamp": 0,  # TCP_WINDOW_CLAMP
    "rcvbuf": 0,  # SO_RCVBUF as doubled by the kernel; 0: tcp_rmem[1]
    "sndbuf": 0,  # SO_SNDBUF as doubled by the kernel; 0: tcp_wmem[1]
    "rcvlowat": 1,  # SO_RCVLOWAT
    "sndtimeo_us": -1,  # SO_SNDTIMEO; -1: for ever
    "rcvtimeo_us": -1,  # SO_RCVTIMEO; -1: for ever
    "linger_s": 0,  # SO_LINGER time, when the LINGER flag is on
    "linger2_s": 0,  # TCP_LINGER2; 0: tcp_fin_timeout, -1: no FIN_WAIT2 at all
    "keepidle_s": 0,  # TCP_KEEPIDLE
    "keepintvl_s": 0,  # TCP_KEEPINTVL
    "keepcnt": 0,  # TCP_KEEPCNT
    "congestion": "",  # TCP_CONGESTION; "": net.ipv4.tcp_congestion_control
    "md5_keys": (),  # TCP_MD5SIG: ((address, prefix length, key bytes), ...)
}


class SockOptions:
    """One immutable set of option values; make a changed copy with `replaced`."""

    __slots__ = (
        "port_low", "port_high", "uid", "mark", "ttl", "tos", "mtu_discover", "min_ttl", "user_mss", "syn_retries",
        "user_timeout_ms", "rto_max_ms", "window_clamp", "rcvbuf", "sndbuf", "rcvlowat", "sndtimeo_us", "rcvtimeo_us",
        "linger_s", "linger2_s", "keepidle_s", "keepintvl_s", "keepcnt", "congestion", "md5_keys",
    )  # fmt: skip

    port_low: int
    port_high: int
    uid: int
    mark: int
    ttl: int
    tos: int
    mtu_discover: int
    min_ttl: int
    user_mss: int
    syn_retries: int
    user_timeout_ms: int
    rto_max_ms: int
    window_clamp: int
    rcvbuf: int
    sndbuf: int
    rcvlowat: int
    sndtimeo_us: int
    rcvtimeo_us: int
    linger_s: int
    linger2_s: int
    keepidle_s: int
    keepintvl_s: int
    keepcnt: int
    congestion: str
    md5_keys: tuple[tuple[int, int, bytes], ...]

    def __init__(self, values: dict[str, object]) -> None:
        self.port_low = values["port_low"]  # type: ignore[assignment]
        self.port_high = values["port_high"]  # type: ignore[assignment]
        self.uid = values["uid"]  # type: ignore[assignment]
        self.mark = values["mark"]  # type: ignore[assignment]
        self.ttl = values["ttl"]  # type: ignore[assignment]
        self.tos = values["tos"]  # type: ignore[assignment]
        self.mtu_discover = values["mtu_discover"]  # type: ignore[assignment]
        self.min_ttl = values["min_ttl"]  # type: ignore[assignment]
        self.user_mss = values["user_mss"]  # type: ignore[assignment]
        self.syn_retries = values["syn_retries"]  # type: ignore[assignment]
        self.user_timeout_ms = values["user_timeout_ms"]  # type: ignore[assignment]
        self.rto_max_ms = values["rto_max_ms"]  # type: ignore[assignment]
        self.window_clamp = values["window_clamp"]  # type: ignore[assignment]
        self.rcvbuf = values["rcvbuf"]  # type: ignore[assignment]
        self.sndbuf = values["sndbuf"]  # type: ignore[assignment]
        self.rcvlowat = values["rcvlowat"]  # type: ignore[assignment]
        self.sndtimeo_us = values["sndtimeo_us"]  # type: ignore[assignment]
        self.rcvtimeo_us = values["rcvtimeo_us"]  # type: ignore[assignment]
        self.linger_s = values["linger_s"]  # type: ignore[assignment]
        self.linger2_s = values["linger2_s"]  # type: ignore[assignment]
        self.keepidle_s = values["keepidle_s"]  # type: ignore[assignment]
        self.keepintvl_s = values["keepintvl_s"]  # type: ignore[assignment]
        self.keepcnt = values["keepcnt"]  # type: ignore[assignment]
        self.congestion = values["congestion"]  # type: ignore[assignment]
        self.md5_keys = values["md5_keys"]  # type: ignore[assignment]

    def as_dict(self) -> dict[str, object]:
        """Every field by name."""
        return {name: getattr(self, name) for name in FIELDS}


class OptionSets:
    """The interning table: index 0 is the default set; a set stays for the life of the Host."""

    def __init__(self) -> None:
        default = SockOptions(dict(FIELDS))
        self.sets: list[SockOptions] = [default]
        self._index: dict[tuple[object, ...], int] = {tuple(FIELDS.values()): 0}

    def replaced(self, index: int, **changes: object) -> int:
        """Index of the set `index` with `changes` applied; -1 when 65,536 different sets exist."""
        values = self.sets[index].as_dict()
        values.update(changes)
        key = tuple(values.values())
        found = self._index.get(key)
        if found is None:
            found = len(self.sets)
            if found > 0xFFFF:
                return -1
            self.sets.append(SockOptions(values))
            self._index[key] = found
        return found

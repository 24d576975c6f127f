"""What an errno of a dial means: the kernel function that says so, and one line for people.

Not here: all ways in which connect() returns an errno (doctor/why.py); these are the ones that a dial meets.
"""

from __future__ import annotations

import errno

_CONNECT = {
    errno.EADDRNOTAVAIL: ("__inet_hash_connect", "no local port is left for that destination"),
    errno.ECONNREFUSED: ("tcp_reset", "nobody listens there, or the listener refuses"),
    errno.ETIMEDOUT: ("tcp_write_timeout", "no answer to any SYN: lost packets, a full backlog, or a firewall"),
    errno.ENETUNREACH: ("ip_route_output_key_hash", "no route to that network"),
    errno.EHOSTUNREACH: ("icmp_unreach", "the host cannot be reached"),
    errno.ENOBUFS: ("sk_alloc", "no room for another socket: max_sockets is reached"),
    errno.ECONNRESET: ("tcp_reset", "reset while it was being set up"),
    errno.EMFILE: ("__alloc_fd", "no descriptor is left: ulimit -n"),
    errno.EINVAL: ("ip_route_output_key_hash", "the source address cannot be used"),
    errno.ECANCELED: ("tcp_close", "given up: the dial was stopped"),
}
_OPEN = {
    0: ("tcp_fin", "closed by the peer"),
    errno.ECONNRESET: ("tcp_reset", "reset by the peer"),
    errno.ETIMEDOUT: ("tcp_write_err", "the peer stopped answering"),
    errno.EPIPE: ("tcp_reset", "reset by the peer after it had closed"),
    errno.EHOSTUNREACH: ("icmp_unreach", "the host cannot be reached any more"),
}


def describe(number: int, phase: str) -> tuple[str, str, str]:
    """(name, kernel function, meaning) of an errno in `connect` or `open`; 0 is a FIN of the peer."""
    function, meaning = (_OPEN if phase == "open" else _CONNECT).get(number, ("", ""))
    name = errno.errorcode.get(number, f"E{number}") if number else "FIN"
    return name, function, meaning

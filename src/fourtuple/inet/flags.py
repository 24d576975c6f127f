"""Bits of the `flags` column and of `userlocks`: what the kernel keeps as single-bit fields of sock and inet_sock.

Not here: options with a value (SockOptions) and TCP's own bits (tcp/sock.py).
"""

from __future__ import annotations

# flags: struct sock / inet_sock bit fields
REUSE = 1 << 0  # SO_REUSEADDR
REUSEPORT = 1 << 1  # SO_REUSEPORT
BIND_ADDRESS_NO_PORT = 1 << 2  # IP_BIND_ADDRESS_NO_PORT
FREEBIND = 1 << 3  # IP_FREEBIND
TRANSPARENT = 1 << 4  # IP_TRANSPARENT
RECVERR = 1 << 5  # IP_RECVERR
KEEPOPEN = 1 << 6  # SO_KEEPALIVE
LINGER = 1 << 7  # SO_LINGER is on
CONNECT_BIND = 1 << 8  # the port came from connect(): SOCK_CONNECT_BIND of sk_userlocks (6.18)
SADDR_WILD = 1 << 9  # bound to a multicast or broadcast address: inet_saddr is 0 though inet_rcv_saddr is not
DEAD = 1 << 10  # SOCK_DEAD: no descriptor refers to it any more
DONE = 1 << 11  # SOCK_DONE: a FIN was received or the connection is over
HASHED = 1 << 12  # in the ehash
REPAIR = 1 << 13  # TCP_REPAIR: connect() sends nothing
NODELAY = 1 << 14  # TCP_NODELAY
CORK = 1 << 15  # TCP_CORK
PINGPONG = 1 << 16  # inet_csk_in_pingpong_mode: ACKs are delayed
CHILD = 1 << 17  # made by a listener, not yet accepted
ERRQUEUE = 1 << 18  # the error queue holds an entry
SOCKET_GONE = 1 << 19  # struct socket was released (sock_orphan)

# userlocks (include/net/sock.h)
BINDADDR_LOCK = 4
BINDPORT_LOCK = 8
RCVBUF_LOCK = 2
SNDBUF_LOCK = 1
BIND_MOVED = 16  # ours: bound, but its address came later, to where connect() had been before (inet/bind.py)
TW_BIND_MOVED = 1 << 20  # the same in the flags of a TIME_WAIT, which have no bits of tcp/sock.py

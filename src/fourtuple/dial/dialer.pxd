cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.dial.histogram cimport Histogram, hist_record
from fourtuple.inet.sock_table cimport sk_handle
from fourtuple.tcp.close cimport tcp_close
from fourtuple.tcp.ipv4 cimport tcp_v4_connect
from fourtuple.tcp.net cimport Net, tcp_jiffies
from fourtuple.tcp.output cimport tcp_send_active_reset, tcp_xmit_probe_skb
from fourtuple.tcp.sock cimport TcpSockTable, last_ack_time
from fourtuple.tcp.tcp cimport tcp_done, tcp_init_sock

cdef uint64_t _M32
cdef uint32_t _LISTED, _EV_IN, _EV_ERR, EVENT_BITS, BINDADDR_LOCK, DEAD, KEEPOPEN, LINGER
cdef uint32_t TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_CLOSE, TCP_SYN_SENT
cdef uint32_t _NOT_OURS, _IN_FLIGHT, _OPEN, _PHASE, _REDIALS_SHIFT, _TIMED_ROUNDS, _SLOTS, _MOST_ROWS, _MOST_LOOKED_AT
cdef uint64_t _SLOT_US


@cython.final
cdef class Dialer:
    cdef public Net net
    cdef public uint32_t[::1] route_saddr, route_daddr, route_dport, route_begun, fresh_at
    cdef public uint8_t[::1] phase
    cdef public object clock_ns, on_end, results
    cdef public list readable, others
    cdef public uint32_t[::1] since
    cdef public Histogram connect_ns, handshake_ns, passed_over
    cdef public uint32_t route_count, next_route, cursor, in_flight, open, stalled, fresh, slot, swept, noted
    cdef public uint64_t rounds, begun, established, failed, lost, closed, resent, resent_segments
    cdef public bint is_keeping, is_reading


@cython.locals(timed=bint, before=uint64_t, after=uint64_t, i=int)
cpdef int dial_begin(Dialer d, int n, uint32_t redials) except -1
@cython.locals(net=Net, sks=TcpSockTable, row=int64_t, sk=uint32_t, i=uint32_t, err=int)
cdef int _connect_next(Dialer d, uint32_t redials) except? -1
@cython.locals(slot=uint32_t, steps=uint32_t)
cdef int _turn_slots(Dialer d) except -1
@cython.locals(slot=uint32_t)
cdef int _not_in_flight(Dialer d, uint64_t age_us) except -1
@cython.locals(age=uint64_t)
cdef uint64_t _age_us(Dialer d, uint32_t sk) except? 0xFFFFFFFFFFFF
cdef int _count_resent(Dialer d, uint32_t sk) except -1
cdef int _end_attempt(Dialer d, uint32_t sk, int error) except -1
@cython.locals(redials=uint32_t)
cdef int _let_go(Dialer d, uint32_t sk, int error, bint was_open) except -1
@cython.locals(net=Net, sks=TcpSockTable, count=uint32_t, i=uint32_t, sk=uint32_t, bits=uint32_t, phase=uint32_t)
cpdef int dial_take(Dialer d) except -1
@cython.locals(sks=TcpSockTable, state=uint32_t)
cdef uint32_t _attempt_event(Dialer d, uint32_t sk, uint32_t bits) except? 99
@cython.locals(sks=TcpSockTable, micros=uint64_t)
cdef int _established(Dialer d, uint32_t sk) except -1
@cython.locals(since=uint32_t)
cdef uint32_t _take_note(Dialer d, uint32_t sk) except? 0xFFFFFFFF
@cython.locals(sks=TcpSockTable, micros=uint64_t, since=uint32_t)
cdef int _established_late(Dialer d, uint32_t sk) except -1
@cython.locals(sks=TcpSockTable, state=uint32_t, unread=uint32_t)
cdef int _open_event(Dialer d, uint32_t sk, uint32_t bits) except -1
cpdef int dial_lose(Dialer d, uint32_t sk) except -1
@cython.locals(sks=TcpSockTable, looked_at=uint32_t, sk=uint32_t, last=uint32_t)
cpdef int dial_sweep(Dialer d, uint32_t timeout_ms) except -1
@cython.locals(sks=TcpSockTable, age=uint64_t)
cdef int _look_at(Dialer d, uint32_t sk, uint32_t timeout_ms) except -1
@cython.locals(net=Net, sks=TcpSockTable, done=int, sk=uint32_t)
cpdef int dial_close_some(Dialer d, int n, bint reset) except -1
cdef int _close_open(Dialer d, uint32_t sk, bint reset) except -1
cpdef int dial_close(Dialer d, uint32_t sk, bint reset) except? -1
@cython.locals(sks=TcpSockTable, sk=uint32_t, done=int)
cpdef int dial_abort(Dialer d, int n) except -1
@cython.locals(sks=TcpSockTable, sk=uint32_t, done=int)
cpdef int dial_reset_closing(Dialer d) except -1
@cython.locals(sks=TcpSockTable, sk=uint32_t, done=int)
cpdef int dial_probe_some(Dialer d, int n) except -1
@cython.locals(sks=TcpSockTable, sk=uint32_t, count=int)
cpdef int dial_answered(Dialer d, uint32_t since_ms) except -1
cdef class _PortCounts:
    cdef uint32_t[::1] counts


@cython.locals(sks=TcpSockTable, sk=uint32_t, total=int, into=_PortCounts)
cpdef int dial_count_ports(Dialer d, object counts) except -1
cpdef uint32_t dial_next_open(Dialer d, uint32_t sk) except? 0

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from benchmarks.loops cimport Rows
from fourtuple.inet.hashtables cimport inet_hash_connect, inet_put_port, inet_unhash
from fourtuple.ip.input cimport ip_rcv
from fourtuple.ip.txqueue cimport TxQueue, tx_reset
from fourtuple.tcp.ipv4 cimport tcp_v4_connect
from fourtuple.tcp.net cimport Net, inet_csk_clear_xmit_timer, tcp_reset_xmit_timer
from fourtuple.tcp.sock cimport sk_free
from fourtuple.tcp.tcp cimport tcp_init_sock
from fourtuple.wire.buffer cimport PacketBuffer, get32, put16, put32

cdef uint32_t _SLOT, _SYNACK, _DPORT, _ISN, _TSVAL, _ROUND_TRIP_US, _RTO_US
cdef uint64_t _TEMPLATE_SUM, _M32

@cython.final
cdef class Peer:
    cdef public Net net
    cdef public PacketBuffer rx
    cdef public uint32_t daddr, dests, dev, begun, batch

@cython.locals(net=Net, i=uint32_t, sk=int64_t, err=int)
cpdef uint32_t begin(Peer peer, uint32_t n) except? 1
@cython.locals(tx=TxQueue, rx=PacketBuffer, i=uint32_t)
cpdef uint32_t answer(Peer peer) except? 1
@cython.locals(saddr=uint32_t, daddr=uint32_t, ports=uint32_t, ack=uint32_t, tsecr=uint32_t, total=uint64_t)
cdef void _synack(PacketBuffer syn, uint32_t at, PacketBuffer rx, uint32_t off) noexcept nogil
cdef uint64_t _words(uint32_t value) noexcept nogil
cdef uint32_t _fold(uint64_t total) noexcept nogil
@cython.locals(taken=uint32_t, i=uint32_t)
cpdef uint32_t deliver(Peer peer, uint32_t n) except? 1
@cython.locals(done=uint32_t, n=uint32_t, took=uint64_t, start=uint64_t)
cpdef uint64_t handshakes(Peer peer, uint32_t n) except? 1
@cython.locals(i=uint32_t, start=uint64_t, took=uint64_t, slow_begin=uint64_t, slow_deliver=uint64_t, begin_at=uint32_t,
               deliver_at=uint32_t)
cpdef tuple slowest_calls(Peer peer, uint32_t n)
@cython.locals(rows=Rows, start=uint64_t, i=uint32_t, at=uint32_t, sk=int64_t)
cpdef uint64_t lives(Net net, uint32_t n, uint32_t alive, uint32_t saddr, uint32_t daddr, uint32_t dests) except? 1
cdef int _end(Net net, uint32_t sk) except -1

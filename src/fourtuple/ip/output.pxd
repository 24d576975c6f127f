cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.ip.netns cimport IpNet
from fourtuple.ip.txqueue cimport TxQueue, tx_commit, tx_packet, tx_reserve
from fourtuple.trace cimport trace
from fourtuple.wire.tcp cimport TcpHeader, emit_segment, seal_segment

cdef uint32_t _LOOPBACK_IFINDEX
cdef int FN_IP_QUEUE_XMIT


cpdef TxQueue ip_queue_of(IpNet net, bint dev_loopback)
@cython.locals(off=uint32_t, start=int64_t)
cpdef int64_t ip_build(IpNet net, TxQueue queue, TcpHeader th, uint32_t saddr, uint32_t daddr, uint32_t ttl,
                       uint32_t tos, bint df, uint32_t ident, object payload, uint32_t payload_len)
cpdef void ip_local_out(IpNet net, TxQueue queue, uint32_t off, int dev)

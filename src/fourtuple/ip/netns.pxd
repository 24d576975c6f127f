cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fourtuple.inet.secrets cimport BootSecrets
from fourtuple.ip.fib_table cimport FibClock
from fourtuple.ip.route cimport ip_route_connect
from fourtuple.ip.txqueue cimport TxQueue
from fourtuple.mib cimport Mib
from fourtuple.sysctl cimport Sysctls
from fourtuple.trace cimport Tracer
from fourtuple.wire.icmp cimport IcmpHeader
from fourtuple.wire.ipv4 cimport Ipv4Header


cdef class IpNet:
    cdef public object fib
    cdef public FibClock fib_clock
    cdef public Sysctls sysctl
    cdef public BootSecrets secrets
    cdef public Mib mib
    cdef public TxQueue tx, loopback
    cdef public Tracer tracer
    cdef public uint64_t now_us
    cdef public uint32_t rx_dev
    cdef public dict protocols
    cdef public object sniff
    cdef public Ipv4Header tx_ip, rx_ip, err_ip
    cdef public IcmpHeader rx_icmp
    # what was last asked of `fib`, good while its generation is the same
    cdef public uint32_t fib_generation, local_addr
    cdef public object local_addresses
    cdef public uint64_t[::1] route_keys
    cdef public uint32_t[::1] route_oifs
    cdef public list routes, rtables


@cython.locals(generation=uint32_t)
cpdef void net_refresh(IpNet net) except *
@cython.locals(key=uint64_t, slot=uint64_t, wide=uint64_t)
cpdef object net_route(IpNet net, uint32_t daddr, uint32_t saddr, uint32_t oif)
cpdef bint ip_is_local(IpNet net, uint32_t daddr, uint32_t saddr, int dev)

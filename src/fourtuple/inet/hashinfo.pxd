cimport cython
from libc.stdint cimport int32_t, uint32_t, uint64_t
from fourtuple.inet.bind cimport BindTable
from fourtuple.inet.dest cimport DestTable
from fourtuple.inet.portset cimport PortSets
from fourtuple.inet.secrets cimport BootSecrets
from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.inet.sock_table cimport SockTable
from fourtuple.inet.timewait cimport TimeWaitTable
from fourtuple.inet.tuple_index cimport TupleIndex
from fourtuple.sysctl cimport Sysctls
from fourtuple.trace cimport Tracer

cdef class PortRange:
    cdef public int32_t low, high, remaining, step, stride
    cdef public uint32_t generation, own, unbound, own_map, unbound_map
    cdef public bint certain

cdef class InetHashinfo:
    cdef public SockTable sks
    cdef public TimeWaitTable tw
    cdef public TupleIndex ehash
    cdef public PortSets sets
    cdef public BindTable bind
    cdef public DestTable dests
    cdef public Sysctls sysctl
    cdef public BootSecrets secrets
    cdef public Tracer tracer
    cdef public dict listeners
    cdef public uint32_t tw_recycled
    cdef public uint32_t last_distance
    cdef public uint32_t sysctl_generation
    cdef public PortRange range
    cdef public tuple reserved_ranges
    # of the profile; `variant`: the search is not that of 6.18
    cdef public bint variant, one_counter, local_range_step_1, bind_step_1
    cdef public int port_order
    cdef public uint32_t step_width
    cdef public uint64_t rehash_period_us

cpdef int refresh_sysctls(InetHashinfo h) except -1
@cython.locals(low=int32_t, high=int32_t, own_low=int32_t, own_high=int32_t, local=bint, options=SockOptions)
cpdef bint inet_sk_get_local_port_range(InetHashinfo h, uint32_t sk) noexcept

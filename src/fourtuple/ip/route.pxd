# Rtable and Route are C structs to compiled callers; route.py has the meaning of each field.
cimport cython

from fourtuple.ip.fib_table cimport FibRoute, Flow

cdef unsigned int INADDR_BROADCAST, _HEADERS, _MAX_MTU
cdef int RTN_LOCAL, RTN_MULTICAST, RTN_BROADCAST, RTN_UNICAST, RT_SCOPE_LINK, _LOCAL_MULTICAST


cdef class Rtable:
    cdef public unsigned int index
    cdef public int rt_type
    cdef public int dev
    cdef public unsigned int gateway
    cdef public unsigned int mtu
    cdef public bint mtu_locked
    cdef public unsigned int advmss
    cdef public unsigned int window
    cdef public unsigned int initrwnd
    cdef public unsigned int initcwnd
    cdef public int hoplimit
    cdef public unsigned int rto_min_us
    cdef public bint ecn
    cdef public bint quickack
    cdef public bint is_local
    cdef public bint dev_loopback


cdef class Route:
    cdef public Rtable rt
    cdef public unsigned int saddr
    cdef public unsigned int daddr


@cython.locals(wide=cython.ulonglong, key=cython.ulonglong, cache=dict)
cpdef object ip_route_connect(object fib, unsigned int daddr, unsigned int saddr, int oif, unsigned int mark=*, int tos=*, bint anysrc=*)

@cython.locals(mss=cython.uint)
cpdef unsigned int dst_metric_advmss(Rtable rt, unsigned int min_adv_mss) noexcept

cpdef int ip_route_input(object fib, unsigned int daddr, unsigned int saddr, int iif)
cpdef bint ip_route_input_is_local(object fib, unsigned int daddr, unsigned int saddr=*, int iif=*)


@cython.final
cdef class _Output:
    cdef public object dev
    cdef public int rt_type
    cdef public FibRoute route


cdef object _connect(object fib, Flow flow)
cpdef object ip_route_output_key_hash_rcu(object fib, Flow flow)
cdef object _source_rules(object fib, Flow flow)
cdef object _device_rules(object fib, Flow flow)
cdef object _by_table(object fib, Flow flow)
cdef object _preferred_source(object fib, FibRoute route)
@cython.locals(rt_type=int, route=FibRoute)
cdef object _mkroute_output(object fib, Flow flow, _Output way)
cdef object _rtable(object fib, object dev, int rt_type, FibRoute route, object known)

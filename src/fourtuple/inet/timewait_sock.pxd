cimport cython
from libc.stdint cimport uint32_t
from fourtuple.inet.bind cimport BindTable, bucket_join, bucket_leave, bucket_replace
from fourtuple.inet.dest cimport DestTable, dest_remove, dest_tw_append, dest_tw_remove
from fourtuple.inet.hashinfo cimport InetHashinfo
from fourtuple.inet.sock_table cimport SockTable
from fourtuple.inet.timewait cimport TimeWaitTable, tw_fifo_remove, tw_free
from fourtuple.inet.tuple_index cimport TupleIndex, index_erase, index_insert

cdef uint32_t _M32, _TCP_TIME_WAIT, _CONNECT_BIND, _HASHED, _DEAD, _BINDPORT_LOCK, _TW_FLAGS, _BIND_MOVED, _TW_BIND_MOVED

@cython.locals(port=uint32_t, dest=uint32_t)
cpdef void inet_twsk_hashdance(InetHashinfo h, uint32_t sk, uint32_t tw) noexcept nogil
cpdef void inet_twsk_kill(InetHashinfo h, uint32_t tw) noexcept nogil
@cython.locals(dest=uint32_t)
cpdef void inet_twsk_release(InetHashinfo h, uint32_t tw, uint32_t heir) noexcept nogil
@cython.locals(dest=uint32_t)
cpdef void inet_twsk_enter_time_wait(InetHashinfo h, uint32_t tw, uint32_t now_ms) noexcept nogil

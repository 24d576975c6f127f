cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.tcp.net cimport Net, TcpCold
from fourtuple.tcp.sock cimport TcpSockTable

cdef uint32_t _M32, _U16_MAX, _MAX_TCP_WINDOW, HAS_COLD


@cython.locals(opts=SockOptions)
cpdef uint32_t sk_rcvbuf(Net net, uint32_t sk)
cpdef uint32_t tcp_full_space(Net net, uint32_t sk)
@cython.locals(ratio=int64_t)
cpdef int64_t tcp_win_from_space(TcpSockTable sks, uint32_t sk, int64_t space) noexcept
@cython.locals(size=uint32_t, bucket=uint32_t)
cpdef uint32_t skb_truesize(uint32_t length) noexcept
@cython.locals(free=int64_t, cold=TcpCold)
cpdef int64_t tcp_space(Net net, uint32_t sk)
@cython.locals(clamp=uint64_t, wide=uint64_t, scale=uint32_t, window=uint64_t, segments=uint32_t)
cpdef uint32_t tcp_select_initial_window(Net net, uint32_t sk, uint64_t space, uint32_t mss, bint wscale_ok,
                                         uint32_t init_rcv_wnd)
@cython.locals(fewer=uint32_t)
cdef uint32_t tcp_default_init_rwnd(uint32_t segments, uint32_t mss) noexcept
@cython.locals(bits=uint32_t)
cdef uint32_t _wscale_for(uint64_t space) noexcept
@cython.locals(right=uint32_t, wide=uint64_t)
cpdef uint32_t tcp_receive_window(TcpSockTable sks, uint32_t sk) noexcept
@cython.locals(sks=TcpSockTable, cur_win=uint32_t, new_win=uint32_t, old_win=uint32_t, scale=uint32_t, wide=uint64_t, limit=uint64_t)
cpdef uint32_t tcp_select_window(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, mss=int64_t, free_space=int64_t, allowed=int64_t, full=int64_t, window=int64_t, scale=uint32_t, unit=int64_t)
cpdef uint32_t _tcp_select_window(Net net, uint32_t sk)
@cython.locals(window=int64_t)
cdef uint32_t _unscaled_window(TcpSockTable sks, uint32_t sk, int64_t free_space, int64_t mss, int64_t full)

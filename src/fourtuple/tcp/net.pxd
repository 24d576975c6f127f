cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.hashinfo cimport InetHashinfo
from fourtuple.ip.netns cimport IpNet
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.wheel cimport TimerWheel, wheel_arm, wheel_cancel, wheel_due_of
from fourtuple.wire.buffer cimport PacketBuffer
from fourtuple.wire.tcp cimport TcpHeader

cdef uint64_t _M32
cdef uint32_t _LISTED
cdef uint32_t HAS_COLD, PROBE0, LOSS_PROBE
cdef uint8_t TIMER_RTX, TIMER_DELACK, TIMER_KEEP


@cython.final
cdef class Segment:
    cdef public uint32_t seq, end_seq, sent_ms
    cdef public uint64_t sent_us
    cdef public uint16_t flags
    cdef public uint8_t marks, rexmits
    cdef public object payload
    cdef public uint32_t length


@cython.final
cdef class TcpCold:
    cdef public object rtx, sendq, rcvq, rcvq_sizes, errq
    cdef public list ofo, recent_sacks
    cdef public object listener
    cdef public int write_pending
    cdef public uint32_t rcvq_bytes, ofo_bytes, sendq_bytes, rmem
    cdef public uint8_t ca_state
    cdef public uint64_t first_sackt
    cdef public uint32_t probes_tstamp
    cdef public uint32_t sacked_out, lost_out, retrans_out, dup_acks
    cdef public uint32_t high_seq, undo_marker, prior_ssthresh, prior_cwnd, snd_sml, pushed_seq
    cdef public uint32_t max_packets_out, max_packets_seq, tlp_high_seq
    cdef public int undo_retrans
    cdef public bint is_cwnd_limited, tlp_retrans, fin_queued, dsack
    cdef public uint32_t dsack_start, dsack_end


cdef class Net(IpNet):
    cdef public TcpSockTable sks
    cdef public InetHashinfo h
    cdef public TimerWheel wheel
    cdef public dict cold
    cdef public int uid
    cdef public uint32_t[::1] dirty
    cdef public uint32_t dirty_count
    cdef public TcpHeader tx_th, rx_th
    cdef public PacketBuffer rx_buf
    cdef public uint32_t orphans, reqsk_serial
    cdef public dict requests
    cdef public int challenge_count
    cdef public uint32_t challenge_stamp
    cdef public dict oow_stamps
    # of the profile (KernelProfile says what they are); times in us
    cdef public uint64_t initial_rto, syn_budget_base
    cdef public bint counts_syns, user_timeout_of_syn
    cdef public uint32_t init_cwnd, first_window, first_window_max
    cdef public int ts_offsets


cpdef void net_event(Net net, uint32_t sk, uint32_t bits) noexcept
@cython.locals(bits=uint32_t, sk=uint32_t, i=uint32_t)
cpdef list net_events(Net net)
cpdef uint32_t tcp_jiffies(Net net) noexcept
cpdef TcpCold cold_of(Net net, uint32_t sk)
@cython.locals(cold=TcpCold)
cpdef TcpCold cold_get(Net net, uint32_t sk)
@cython.locals(cold=TcpCold)
cpdef void cold_trim(Net net, uint32_t sk)
cpdef void cold_drop(Net net, uint32_t sk)

@cython.locals(due=uint64_t)
cpdef void tcp_reset_xmit_timer(Net net, uint32_t sk, uint64_t delay_us)
@cython.locals(due=uint64_t)
cpdef void tcp_reset_probe0_timer(Net net, uint32_t sk, uint64_t delay_us)
cpdef void tcp_reset_delack_timer(Net net, uint32_t sk, uint64_t due_us)
cpdef void tcp_reset_keepalive_timer(Net net, uint32_t sk, uint64_t delay_us)
cpdef void inet_csk_clear_xmit_timer(Net net, uint32_t sk) noexcept
cpdef void inet_csk_clear_delack_timer(Net net, uint32_t sk) noexcept
cpdef void inet_csk_delete_keepalive_timer(Net net, uint32_t sk) noexcept
cpdef void tcp_clear_xmit_timers(Net net, uint32_t sk) noexcept

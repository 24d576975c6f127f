"""TCP's timers (net/ipv4/tcp_timer.c): retransmission, window probe, delayed ACK, keepalive, FIN_WAIT2, TIME_WAIT.

Also the two functions that the Host turns the wheel with: net_next_timeout and net_handle_timeout.  Each timer runs
with net.now_us at its own due time, however late it is called.
"""

from __future__ import annotations

import errno

from fourtuple.inet.flags import DEAD, KEEPOPEN, PINGPONG
from fourtuple.ip.input import net_run_loopback
from fourtuple.ip.netns import net_refresh
from fourtuple.kernel_map import (
    FN_TCP_DELACK_TIMER,
    FN_TCP_KEEPALIVE_TIMER,
    FN_TCP_PROBE_TIMER,
    FN_TCP_RESET_XMIT_TIMER,
    FN_TCP_RETRANSMIT_TIMER,
    FN_TCP_WRITE_ERR,
    FN_TCP_WRITE_TIMEOUT,
)
from fourtuple.tcp.constants import (
    TCP_ATO_MIN,
    TCP_RTO_MIN,
    TCP_TIMEWAIT_LEN,
    TIMER_DELACK,
    TIMER_KEEP,
    TIMER_REQSK,
    TIMER_RTX,
    TIMER_TW,
)
from fourtuple.tcp.input_synsent import keepalive_time_when
from fourtuple.tcp.listen import reqsk_timer_handler
from fourtuple.tcp.minisocks import (
    tcp_fin_time_us,
    tcp_time_wait,
    tw_timer_handler,
)
from fourtuple.tcp.net import (
    Net,
    cold_of,
    tcp_jiffies,
    tcp_reset_keepalive_timer,
    tcp_reset_xmit_timer,
)
from fourtuple.tcp.output import (
    tcp_retransmit_syn,
    tcp_rto_max,
    tcp_send_ack,
    tcp_send_active_reset,
)
from fourtuple.tcp.output_data import (
    tcp_packets_out,
    tcp_retransmit_skb,
    tcp_rto_min_us,
    tcp_send_loss_probe,
    tcp_send_probe0,
    tcp_write_wakeup,
)
from fourtuple.tcp.recovery import tcp_enter_loss
from fourtuple.tcp.sock import ACK_SCHED, ACK_TIMER, LOSS_PROBE, PROBE0, last_ack_time
from fourtuple.tcp.states import (
    TCP_CLOSE,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_SYN_RECV,
    TCP_SYN_SENT,
)
from fourtuple.tcp.tcp import tcp_done, tcp_done_with_error
from fourtuple.trace import trace
from fourtuple.wheel import wheel_next_due, wheel_pop

_M32 = 0xFFFFFFFF
_THIN_LINEAR_RETRIES = 6


# -- is it enough?


def tcp_model_timeout(net: Net, sk: int, boundary: int, rto_base: int) -> int:
    """How long `boundary` retransmissions with exponential backoff from `rto_base` us take, in ms."""
    limit = tcp_rto_max(net, sk)
    linear = 0
    while linear < 31 and (rto_base << (linear + 1)) <= limit:
        linear += 1
    if boundary <= linear:
        wide = 2
        wide <<= boundary
        return (wide - 1) * rto_base // 1000
    wide = 2
    wide <<= linear
    return ((wide - 1) * rto_base + (boundary - linear) * limit) // 1000


def retransmits_timed_out(net: Net, sk: int, boundary: int, timeout_ms: int) -> bool:
    """Has retransmitting gone on for `timeout_ms` (0: for as long as the model says)?  False before the first one."""
    if net.sks.retransmits[sk] == 0:
        return False
    if timeout_ms == 0:
        state = net.sks.sk_state[sk]
        base = net.syn_budget_base if state == TCP_SYN_SENT or state == TCP_SYN_RECV else TCP_RTO_MIN
        timeout_ms = tcp_model_timeout(net, sk, boundary, base)
    elapsed = (tcp_jiffies(net) - net.sks.retrans_stamp[sk]) & _M32
    return elapsed >= timeout_ms


def tcp_write_timeout(net: Net, sk: int) -> bool:
    """Give up?  If so the connection is over when this returns true (RTX-03..13, -18)."""
    opts = net.sks.option_sets[net.sks.opts[sk]]
    state = net.sks.sk_state[sk]
    user_timeout_ms = opts.user_timeout_ms
    expired = False
    if state == TCP_SYN_SENT or state == TCP_SYN_RECV:
        retry_until = opts.syn_retries if opts.syn_retries else net.sysctl.tcp_syn_retries
        most = retry_until
        if state == TCP_SYN_SENT:
            most += net.sysctl.tcp_syn_linear_timeouts
        expired = net.counts_syns and net.sks.retransmits[sk] >= most
        if not net.user_timeout_of_syn:
            user_timeout_ms = 0
    else:
        retry_until = net.sysctl.tcp_retries2
        if net.sks.flags[sk] & DEAD:
            retry_until = tcp_orphan_retries(net, sk, net.sks.rto[sk] < tcp_rto_max(net, sk))
        most = retry_until
    if not expired:
        expired = retransmits_timed_out(net, sk, retry_until, user_timeout_ms)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_WRITE_TIMEOUT, sk, expired, net.sks.retransmits[sk], most)
    if expired:
        tcp_write_err(net, sk)
    return expired


def tcp_orphan_retries(net: Net, sk: int, alive: bool) -> int:
    """Retries of a connection without a descriptor: 8 while the timeout is below its maximum, unless configured."""
    retries = net.sysctl.tcp_orphan_retries
    if net.sks.err_soft[sk] and not alive:
        retries = 0
    if retries == 0 and alive:
        retries = 8
    return retries


def tcp_write_err(net: Net, sk: int) -> None:
    """Over: with the error an ICMP message left, else ETIMEDOUT."""
    error = net.sks.err_soft[sk] or errno.ETIMEDOUT
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_WRITE_ERR, sk, error)
    net.mib.TcpExtTCPAbortOnTimeout += 1
    tcp_done_with_error(net, sk, error)


def tcp_clamp_rto_to_user_timeout(net: Net, sk: int) -> int:
    """The timeout, shortened so that TCP_USER_TIMEOUT is noticed when it is over (RTX-10, -11); us."""
    opts = net.sks.option_sets[net.sks.opts[sk]]
    if opts.user_timeout_ms == 0 or not net.user_timeout_of_syn:
        return net.sks.rto[sk]
    elapsed = (tcp_jiffies(net) - net.sks.retrans_stamp[sk]) & _M32
    left = opts.user_timeout_ms
    left -= elapsed
    if left <= 0:
        return 1000
    left *= 1000
    return min(left, net.sks.rto[sk])


# -- retransmission


def tcp_retransmit_timer(net: Net, sk: int) -> None:
    """Nothing came back in time: again, with a doubled timeout, except for the first few SYNs (RTX-01)."""
    sks = net.sks
    state = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RETRANSMIT_TIMER, sk, sks.retransmits[sk], sks.rto[sk], sks.backoff[sk], state)
    cold = cold_of(net, sk)
    queued = cold is not None and len(cold.rtx) > 0
    if not queued and state != TCP_SYN_SENT and state != TCP_SYN_RECV:
        return
    if queued and sks.snd_wnd[sk] == 0 and not sks.flags[sk] & DEAD and state != TCP_SYN_RECV:
        _probe_shrunk_window(net, sk)
        return
    net.mib.TcpExtTCPTimeouts += 1
    if tcp_write_timeout(net, sk):
        return
    tcp_enter_loss(net, sk)
    if sks.retransmits[sk] < 255:
        sks.retransmits[sk] += 1
    if sks.total_rto[sk] < 65535:
        sks.total_rto[sk] += 1
    if not queued:
        tcp_retransmit_syn(net, sk)
    elif cold is not None:
        tcp_retransmit_skb(net, sk, cold.rtx[0])
    _back_off(net, sk)
    delay = tcp_clamp_rto_to_user_timeout(net, sk)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RESET_XMIT_TIMER, sk, 1, delay)
    tcp_reset_xmit_timer(net, sk, delay)


def _back_off(net: Net, sk: int) -> None:
    """Double the timeout; not for the first tcp_syn_linear_timeouts SYNs, nor (if asked) for thin streams."""
    sks = net.sks
    state = sks.sk_state[sk]
    if state == TCP_ESTABLISHED and net.sysctl.tcp_thin_linear_timeouts and _is_thin(net, sk):
        sks.backoff[sk] = 0
        rto = (sks.srtt[sk] >> 3) + sks.rttvar[sk]
        sks.rto[sk] = min(max(rto, tcp_rto_min_us(net, sk)), tcp_rto_max(net, sk))
    elif state != TCP_SYN_SENT or sks.total_rto[sk] > net.sysctl.tcp_syn_linear_timeouts:
        if sks.backoff[sk] < 255:
            sks.backoff[sk] += 1
        sks.rto[sk] = min(sks.rto[sk] * 2, tcp_rto_max(net, sk))


def _is_thin(net: Net, sk: int) -> bool:
    """Fewer than four segments in flight, past slow start (tcp_stream_is_thin)."""
    few = tcp_packets_out(net, sk) < 4 and net.sks.ssthresh[sk] != 0
    return few and net.sks.retransmits[sk] <= _THIN_LINEAR_RETRIES


def _probe_shrunk_window(net: Net, sk: int) -> None:
    """The peer took its window back: the first segment serves as a probe, given up only after a long silence."""
    sks = net.sks
    opts = net.sks.option_sets[sks.opts[sk]]
    silence = (tcp_jiffies(net) - last_ack_time(sks, sk)) & _M32
    limit = opts.user_timeout_ms or 2 * tcp_rto_max(net, sk) // 1000
    if silence > limit:
        tcp_write_err(net, sk)
        return
    tcp_enter_loss(net, sk)
    cold = cold_of(net, sk)
    if cold is not None and cold.rtx:
        tcp_retransmit_skb(net, sk, cold.rtx[0])
    _back_off(net, sk)
    tcp_reset_xmit_timer(net, sk, tcp_clamp_rto_to_user_timeout(net, sk))


def tcp_probe_timer(net: Net, sk: int) -> None:
    """The peer's window is zero and data waits: probe, while the peer answers, or TCP_USER_TIMEOUT at most."""
    sks = net.sks
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_PROBE_TIMER, sk, sks.probes[sk])
    cold = cold_of(net, sk)
    if cold is None or cold.rtx or not cold.sendq:
        sks.probes[sk] = 0
        if cold is not None:
            cold.probes_tstamp = 0
        return
    opts = sks.option_sets[sks.opts[sk]]
    expired = False
    if not cold.probes_tstamp:
        cold.probes_tstamp = tcp_jiffies(net) or 1
    elif opts.user_timeout_ms:
        expired = (tcp_jiffies(net) - cold.probes_tstamp) & _M32 >= opts.user_timeout_ms
    most = net.sysctl.tcp_retries2
    if sks.flags[sk] & DEAD:
        alive = sks.rto[sk] << min(sks.backoff[sk], 31) < tcp_rto_max(net, sk)
        most = tcp_orphan_retries(net, sk, alive)
    if expired or sks.probes[sk] >= most:
        tcp_write_err(net, sk)
    else:
        tcp_send_probe0(net, sk)


def tcp_write_timer(net: Net, sk: int) -> None:
    """The one timer of the sending side, by what it was armed for."""
    flags = net.sks.flags[sk]
    net.sks.timer_rtx[sk] = 0
    net.sks.flags[sk] = flags & ~(PROBE0 | LOSS_PROBE) & _M32
    state = net.sks.sk_state[sk]
    if state == 0 or state == TCP_CLOSE or state == TCP_LISTEN:
        return
    if flags & PROBE0:
        tcp_probe_timer(net, sk)
    elif flags & LOSS_PROBE:
        tcp_send_loss_probe(net, sk)
    else:
        tcp_retransmit_timer(net, sk)


# -- delayed ACK, keepalive


def tcp_delack_timer(net: Net, sk: int) -> None:
    """The ACK that waited for data to ride on goes alone."""
    sks = net.sks
    sks.timer_delack[sk] = 0
    state = sks.sk_state[sk]
    if state == 0 or state == TCP_CLOSE or state == TCP_LISTEN or not sks.flags[sk] & ACK_TIMER:
        return
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_DELACK_TIMER, sk)
    sks.flags[sk] &= ~ACK_TIMER & _M32
    if not sks.flags[sk] & ACK_SCHED:
        return
    if sks.flags[sk] & PINGPONG:
        sks.flags[sk] &= ~PINGPONG & _M32
        sks.ato[sk] = TCP_ATO_MIN
    else:
        sks.ato[sk] = min(sks.ato[sk] << 1, sks.rto[sk] // 1000, 65535)
    tcp_send_ack(net, sk)
    net.mib.TcpExtDelayedACKs += 1


def tcp_keepalive_timer(net: Net, sk: int) -> None:
    """Keepalive (RFC 9293, 3.8.4), and the end of an orphan's FIN_WAIT2."""
    sks = net.sks
    sks.timer_keep[sk] = 0
    state = sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_KEEPALIVE_TIMER, sk, sks.probes[sk], state)
    if state == 0 or state == TCP_LISTEN:
        return
    if state == TCP_FIN_WAIT2 and sks.flags[sk] & DEAD:
        _orphan_fin_wait2_over(net, sk)
        return
    if not sks.flags[sk] & KEEPOPEN or state == TCP_CLOSE or state == TCP_SYN_SENT:
        return
    idle = keepalive_time_when(net, sk)
    cold = cold_of(net, sk)
    if cold is not None and (cold.rtx or cold.sendq):
        tcp_reset_keepalive_timer(net, sk, idle)
        return
    now = tcp_jiffies(net)
    elapsed = min((now - sks.lrcvtime[sk]) & _M32, (now - last_ack_time(sks, sk)) & _M32) * 1000
    if elapsed < idle:
        tcp_reset_keepalive_timer(net, sk, idle - elapsed)
        return
    opts = sks.option_sets[sks.opts[sk]]
    if _keepalive_gives_up(net, sk, elapsed // 1000):
        tcp_send_active_reset(net, sk)
        tcp_write_err(net, sk)
        return
    net.mib.TcpExtTCPKeepAlive += 1
    tcp_write_wakeup(net, sk)
    net.mib.TcpExtTCPWinProbe -= 1
    sks.probes[sk] += 1
    tcp_reset_keepalive_timer(net, sk, (opts.keepintvl_s or net.sysctl.tcp_keepalive_intvl) * 1_000_000)


def _keepalive_gives_up(net: Net, sk: int, elapsed_ms: int) -> bool:
    opts = net.sks.option_sets[net.sks.opts[sk]]
    if opts.user_timeout_ms:
        return elapsed_ms >= opts.user_timeout_ms and net.sks.probes[sk] > 0
    return net.sks.probes[sk] >= (opts.keepcnt or net.sysctl.tcp_keepalive_probes)


def _orphan_fin_wait2_over(net: Net, sk: int) -> None:
    left = tcp_fin_time_us(net, sk) - TCP_TIMEWAIT_LEN
    if left > 0:
        tcp_time_wait(net, sk, TCP_FIN_WAIT2, left)
        return
    tcp_send_active_reset(net, sk)
    tcp_done(net, sk)


# -- the wheel


def tcp_timer_fired(net: Net, owner: int, kind: int) -> None:
    """Run the timer of `kind` of row (or request) `owner`; its node is gone already."""
    if kind == TIMER_RTX:
        tcp_write_timer(net, owner)
    elif kind == TIMER_DELACK:
        tcp_delack_timer(net, owner)
    elif kind == TIMER_KEEP:
        tcp_keepalive_timer(net, owner)
    elif kind == TIMER_TW:
        tw_timer_handler(net, owner)
    elif kind == TIMER_REQSK:
        reqsk_timer_handler(net, owner)


def net_next_timeout(net: Net) -> int:
    """When net_handle_timeout has something to do next, us; -1 when nothing is armed."""
    table = net.h.tw
    due = wheel_next_due(net.wheel)
    if table.fifo_head:
        first = table.due_us[table.fifo_head]
        if due < 0 or first < due:
            due = first
    return due


def net_handle_timeout(net: Net, now_us: int, most: int = 0x7FFFFFFF) -> int:
    """Run what is due by `now_us`, in order, each at its own time, `most` of them at the most; how many timers ran."""
    ran = 0
    net_refresh(net)
    while ran < most:
        table = net.h.tw
        due = net_next_timeout(net)
        if due < 0 or due > now_us:
            break
        net.now_us = max(due, net.now_us)
        first = table.due_us[table.fifo_head] if table.fifo_head else -1
        if first == due:
            tw_timer_handler(net, table.fifo_head)
        elif wheel_pop(net.wheel, due):
            tcp_timer_fired(net, net.wheel.fired_owner, net.wheel.fired_kind)
        net_run_loopback(net)
        ran += 1
    net.now_us = max(now_us, net.now_us)
    return ran

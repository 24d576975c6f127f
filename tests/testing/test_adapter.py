"""testing/adapter.py: the API for outside suites is offered exactly."""

from __future__ import annotations

import errno
import importlib.util
import inspect
import struct

import pytest

from fourtuple.testing.adapter import make_stack
from fourtuple.wire.build import parse_packet
from tests.kernel.oracle import SHARED

spec = importlib.util.spec_from_file_location("shared_adapter", SHARED / "adapter.py")
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)

LINKS = [{"name": "tun0", "mtu": 1500, "addrs": ["10.9.0.1/24"]}]
DST = ("10.9.0.2", 80)


def stack(**options):
    return make_stack(links=LINKS, **options)


def begun(st, addr=DST):
    h = st.socket(2, 1)
    with pytest.raises(BlockingIOError) as error:
        st.connect(h, addr)
    assert error.value.errno == errno.EINPROGRESS
    return h


def test_it_is_a_stack_under_test():
    assert isinstance(stack(), shared.StackUnderTest)


def test_every_method_takes_the_arguments_of_the_protocol():
    for name, member in inspect.getmembers(shared.StackUnderTest, inspect.isfunction):
        if name.startswith("_"):
            continue
        theirs = list(inspect.signature(member).parameters)
        ours = list(inspect.signature(getattr(stack(), name)).parameters)
        assert theirs[1:] == ours, name


def test_connect_emits_one_syn_at_the_time_of_the_call():
    st = stack(now_us=7)
    begun(st)
    (syn,) = st.drain()
    assert syn.time_us == 7
    assert syn.packet[9] == 6 and syn.packet[33] == 2
    assert st.drain() == []


def test_advance_runs_timers_at_their_own_due_time():
    st = stack()
    begun(st)
    assert st.next_timer() == 1_000_000
    st.advance(3_000_000)
    assert [e.time_us for e in st.drain()] == [0, 1_000_000, 2_000_000, 3_000_000]
    assert st.now() == 3_000_000


def test_a_routed_destination_uses_the_route_given():
    st = make_stack(links=LINKS, routes=[{"dst": "default", "dev": "tun0", "mtu": 1000}])
    h = begun(st, ("192.0.2.1", 443))
    assert st.getsockname(h)[0] == "10.9.0.1"
    assert struct.unpack("!H", st.drain()[0].packet[42:44])[0] == 960


def test_sockets_are_listed_as_ss_lists_them():
    st = stack()
    h = begun(st)
    (row,) = st.sockets()
    assert row == (2, "SYN-SENT", "10.9.0.1", st.getsockname(h)[1], "10.9.0.2", 80)


def test_disconnect_takes_an_attempt_back():
    st = stack()
    h = begun(st)
    st.connect(h, None)
    assert list(st.sockets()) == []
    assert st.getsockopt(h, 1, 4, 4) == struct.pack("i", errno.ECONNRESET)


def test_ipv6_sockets_are_refused():
    with pytest.raises(OSError) as error:
        stack().socket(10, 1)
    assert error.value.errno == errno.EAFNOSUPPORT


def test_a_full_range_raises_with_a_report():
    st = stack(sysctl={"net.ipv4.ip_local_port_range": "40000 40000"})
    begun(st)
    h = st.socket(2, 1)
    with pytest.raises(OSError) as error:
        st.connect(h, DST)
    assert error.value.errno == errno.EADDRNOTAVAIL
    assert error.value.report["ports"] == {"low": 40000, "high": 40000, "candidates": 1, "own_range": False}
    assert error.value.report["four_tuple"]["daddr"] == "10.9.0.2"


def test_sysctls_are_read_and_written_as_text():
    st = stack()
    assert st.sysctl("net.ipv4.tcp_syn_retries") == "6"
    assert st.sysctl("net.ipv4.tcp_syn_retries", "3") == "3"
    with pytest.raises(OSError):
        st.sysctl("net.ipv4.tcp_syn_retries", "128")


def test_the_options_that_suites_read_have_their_sizes():
    st = stack()
    h = st.socket(2, 1)
    assert len(st.getsockopt(h, 1, 55, 36)) == 36
    assert len(st.getsockopt(h, 6, 11, 280)) >= 248
    assert st.getsockopt(h, 6, 26, 64) == b""
    assert st.getsockopt(h, 6, 2, 4) == struct.pack("i", 536)


def test_a_listener_accepts_over_loopback():
    st = stack()
    listener = st.socket(2, 1)
    st.bind(listener, ("127.0.0.1", 7000))
    st.listen(listener, 5)
    h = begun(st, ("127.0.0.1", 7000))
    child, peer = st.accept(listener)
    assert peer == st.getsockname(h)
    assert st.send(h, b"ping") == 4
    assert st.ioctl(child, 0x541B) == 4
    assert st.recv(child, 10) == b"ping"
    st.close(h)
    assert st.recv(child, 10) == b""


def test_same_seed_and_same_calls_give_the_same_packets():
    def packets(seed):
        st = stack(seed=seed)
        for _ in range(5):
            begun(st)
        st.advance(10_000_000)
        return st.drain()

    assert packets(1) == packets(1)
    assert packets(1) != packets(2)


def errno_of(call, *arguments):
    with pytest.raises(OSError) as error:
        call(*arguments)
    return error.value.errno


def test_the_clock_refuses_to_run_back():
    st = stack(now_us=10)
    with pytest.raises(ValueError, match="time runs back"):
        st.advance(9)
    assert st.now() == 10


def test_sysctls_may_be_numbers():
    st = stack(sysctl={"net.ipv4.tcp_syn_retries": 3, "net.ipv4.ip_local_port_range": (40000, 40009)})
    assert st.sysctl("net.ipv4.tcp_syn_retries") == "3"
    assert st.sysctl("net.ipv4.ip_local_port_range") == "40000\t40009"
    assert errno_of(st.sysctl, "net.ipv4.tcp_syn_retries", 999) == errno.EINVAL


def test_the_order_of_sysctls_that_bound_each_other_does_not_matter():
    values = {"net.ipv4.ip_unprivileged_port_start": "50000", "net.ipv4.ip_local_port_range": "50001 60000"}
    for items in (values.items(), reversed(values.items())):
        assert stack(sysctl=dict(items)).sysctl("net.ipv4.ip_unprivileged_port_start") == "50000"


def test_a_wrong_sysctl_refuses_the_stack():
    with pytest.raises(OSError) as error:
        stack(sysctl={"net.ipv4.tcp_syn_retries": "bad"})
    assert error.value.errno == errno.EINVAL


def test_an_ipv6_address_is_refused_by_an_ipv4_socket():
    st = stack()
    h = st.socket(2, 1)
    assert errno_of(st.connect, h, ("::1", 80, 0, 0)) == errno.EAFNOSUPPORT
    assert errno_of(st.bind, h, ("::1", 80, 0, 0)) == errno.EAFNOSUPPORT


def test_a_port_out_of_range_is_an_overflow():
    with pytest.raises(OverflowError):
        stack().connect(3, ("10.9.0.2", 65536))


def test_a_gateway_may_be_called_so():
    st = make_stack(links=LINKS, routes=[{"dst": "0.0.0.0/0", "gateway": "10.9.0.254", "src": None}])
    assert st.getsockname(begun(st, ("192.0.2.1", 443)))[0] == "10.9.0.1"


def test_links_may_name_lo_and_have_ipv6_addresses():
    links = [
        {"name": "lo", "mtu": 65536, "addrs": ["127.0.0.1/8", "::1/128"]},
        {"name": "tun0", "mtu": 1500, "addrs": ["fd00::1/64", "10.9.0.1/24"]},
    ]
    st = make_stack(links=links, routes=[{"dst": "::/0", "dev": "tun0"}])
    assert st.getsockname(begun(st))[0] == "10.9.0.1"


def test_a_connection_reset_in_the_queue_is_accepted_with_its_address():
    st = stack()
    listener = st.socket(2, 1)
    st.bind(listener, ("127.0.0.1", 7000))
    st.listen(listener, 5)
    h = begun(st, ("127.0.0.1", 7000))
    name = st.getsockname(h)
    st.setsockopt(h, 1, 13, struct.pack("ii", 1, 0))
    st.close(h)
    child, peer = st.accept(listener)
    assert peer == name
    assert errno_of(st.recv, child, 1) == errno.ECONNRESET


def test_a_keepalive_time_set_after_so_keepalive_counts():
    st = stack()
    listener = st.socket(2, 1)
    st.bind(listener, ("127.0.0.1", 7000))
    st.listen(listener, 5)
    h = begun(st, ("127.0.0.1", 7000))
    st.advance(2_000_000)
    st.setsockopt(h, 1, 9, struct.pack("i", 1))
    assert st.next_timer() == 7_202_000_000
    st.setsockopt(h, 6, 4, struct.pack("i", 5))
    assert st.next_timer() == 5_000_000
    assert errno_of(st.setsockopt, h, 6, 4, struct.pack("i", 0)) == errno.EINVAL


def test_the_numbers_of_a_route_may_be_text_and_what_it_does_not_have_is_named() -> None:
    links = [{"name": "tun0", "mtu": 1500, "addrs": ["10.9.0.1/24"]}]
    stack = make_stack(links=links, routes=[{"dst": "10.8.0.0/16", "dev": "tun0", "mtu": "1000"}])
    handle = stack.socket(2, 1)
    with pytest.raises(BlockingIOError):
        stack.connect(handle, ("10.8.0.1", 80))
    (syn,) = stack.drain()
    assert parse_packet(syn.packet).mss == 960
    with pytest.raises(ValueError, match="a route has no 'colour'"):
        make_stack(links=links, routes=[{"dst": "10.8.0.0/16", "dev": "tun0", "colour": 1}])

"""connect(), descriptors and Waits through a Host, where the catalogue's rows do not look."""

from __future__ import annotations

import errno
import itertools
import struct

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.host import EVENT_BITS, Host
from fourtuple.machine import Machine
from fourtuple.sock.af_inet import pack_sockaddr_in, sockaddr_in
from fourtuple.sock.file import O_NONBLOCK
from fourtuple.sock.wait import PENDING, Wait
from fourtuple.tcp.constants import EV_STATE
from fourtuple.tcp.net import net_event
from tests.kernel.oracle import ko

PEER = parse_ipv4("10.9.0.2")
DST = pack_sockaddr_in(PEER, 80)
LOOP = parse_ipv4("127.0.0.1")
SOCK_NONBLOCK = 0o4000
SO_LINGER, SO_SNDTIMEO = 13, 21


def make_host(**options):
    host = Host(**options)
    host.add_link("tun0", 1500, ["10.9.0.1/24"])
    return host


def loop_pair(host, port=7000):
    """A connected pair over loopback: (client, accepted)."""
    listener = host.sys_socket()
    assert host.sys_bind(listener, pack_sockaddr_in(LOOP, port)) == 0
    assert host.sys_listen(listener, 5) == 0
    client = host.sys_socket()
    assert host.sys_connect(client, pack_sockaddr_in(LOOP, port)) == 0
    return client, host.sys_accept(listener)


def test_a_blocking_connect_is_a_wait_and_a_non_blocking_one_is_einprogress():
    host = make_host()
    assert isinstance(host.sys_connect(host.sys_socket(), DST), Wait)
    assert host.sys_connect(host.sys_socket(2, 1 | SOCK_NONBLOCK), DST) == -errno.EINPROGRESS


def test_a_blocking_connect_over_loopback_does_not_sleep_at_all():
    client, accepted = loop_pair(make_host())
    assert client >= 3
    assert accepted >= 3


def test_blocking_accept_recv_and_send_wake_each_other():
    host = make_host()
    listener = host.sys_socket()
    host.sys_bind(listener, pack_sockaddr_in(LOOP, 7000))
    host.sys_listen(listener, 5)
    accept = host.sys_accept(listener)
    assert isinstance(accept, Wait)
    client = host.sys_socket()
    assert host.sys_connect(client, pack_sockaddr_in(LOOP, 7000)) == 0
    accepted = accept.poll()
    receive = host.sys_recv(accepted, 100)
    assert receive.poll() is PENDING
    assert host.sys_send(client, b"hello") == 5
    assert receive.poll() == b"hello"
    assert host.sys_close(client) == 0
    assert host.sys_recv(accepted, 100) == b""


def test_msg_waitall_waits_for_all_and_gives_what_there_is_at_the_end():
    host = make_host()
    client, accepted = loop_pair(host)
    receive = host.sys_recv(accepted, 6, 0x100)
    host.sys_send(client, b"abc")
    assert receive.poll() is PENDING
    host.sys_send(client, b"def")
    assert receive.poll() == b"abcdef"
    receive = host.sys_recv(accepted, 6, 0x100)
    host.sys_send(client, b"xy")
    host.sys_close(client)
    assert receive.poll() == b"xy"


def test_a_sleeping_call_keeps_the_socket_of_a_closed_descriptor():
    host = make_host()
    fd = host.sys_socket()
    wait = host.sys_connect(fd, DST)
    assert host.sys_close(fd) == 0
    assert [row.state for row in host.sockets()] == ["SYN_SENT"]
    assert wait.signal(False) == -errno.EINTR
    assert list(host.sockets()) == []


def test_closing_one_of_two_descriptors_keeps_the_connection():
    host = make_host()
    fd = host.sys_socket(2, 1 | SOCK_NONBLOCK)
    copy = host.sys_dup(fd)
    host.sys_connect(fd, DST)
    host.sys_close(fd)
    assert host.sys_fcntl(copy, 3) & O_NONBLOCK
    assert host.sys_connect(copy, DST) == -errno.EALREADY
    host.sys_close(copy)
    assert list(host.sockets()) == []


def test_so_sndtimeo_ends_a_connect_at_its_time():
    host = make_host(now_us=1_000_000)
    fd = host.sys_socket()
    host.sys_setsockopt(fd, 1, SO_SNDTIMEO, struct.pack("qq", 0, 300_000))
    wait = host.sys_connect(fd, DST)
    assert wait.deadline_us == 1_300_000
    assert wait.poll(1_299_999) is PENDING
    assert wait.poll(1_300_000) == -errno.EINPROGRESS


def test_close_with_linger_waits_for_the_peer_to_acknowledge():
    host = make_host()
    client, accepted = loop_pair(host)
    host.sys_setsockopt(client, 1, SO_LINGER, struct.pack("ii", 1, 5))
    close = host.sys_close(client)
    assert close.poll() is PENDING
    host.handle_timeout(200_000)  # the peer's delayed ACK of the FIN
    assert close.poll() == 0
    assert host.sys_recv(accepted, 10) == b""


def test_the_descriptor_limit_is_emfile_and_leaves_no_socket_behind():
    host = make_host()
    host.task.files.limit = 4
    assert host.sys_socket() == 3
    assert host.sys_socket() == -errno.EMFILE
    assert host.net.sks.used == 1


def test_a_full_socket_table_is_enobufs():
    host = make_host(max_sockets=1)
    host.sys_socket()
    assert host.sys_socket() == -errno.ENOBUFS


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "code"),
    [
        (10, 1, 0, errno.EAFNOSUPPORT),
        (0, 1, 0, errno.EAFNOSUPPORT),
        (2, 1, 17, errno.EPROTONOSUPPORT),
        (2, 5, 0, errno.ESOCKTNOSUPPORT),
        (2, 11, 0, errno.EINVAL),
        (2, 1, 263, errno.EINVAL),
        (2, 17, 0, errno.EINVAL),
    ],
)
def test_socket_refuses_what_it_does_not_have(family, kind, protocol, code):
    assert make_host().sys_socket(family, kind, protocol) == -code


def test_a_low_port_needs_the_capability():
    host = make_host()
    host.task.cap_net_bind_service = False
    fd = host.sys_socket()
    assert host.sys_bind(fd, pack_sockaddr_in(0, 80)) == -errno.EACCES
    assert host.sys_bind(fd, pack_sockaddr_in(0, 1024)) == 0


def test_reuseport_is_shared_within_a_user_only():
    host = make_host()
    first = host.sys_socket()
    host.sys_setsockopt(first, 1, 15, struct.pack("i", 1))
    assert host.sys_bind(first, pack_sockaddr_in(0, 5000)) == 0
    host.task = host.new_task(uid=65534)
    second = host.sys_socket()
    host.sys_setsockopt(second, 1, 15, struct.pack("i", 1))
    assert host.sys_bind(second, pack_sockaddr_in(0, 5000)) == -errno.EADDRINUSE


def test_poll_of_a_bad_descriptor_is_pollnval():
    assert make_host().sys_poll(99) == 32


def test_a_blocking_poll_wakes_when_the_connection_is_made():
    host = make_host()
    listener = host.sys_socket()
    host.sys_bind(listener, pack_sockaddr_in(LOOP, 7000))
    host.sys_listen(listener, 5)
    poll = host.sys_poll(listener, 1, -1)
    assert poll.poll() is PENDING
    host.sys_connect(host.sys_socket(), pack_sockaddr_in(LOOP, 7000))
    assert poll.poll() == 1


def test_an_event_names_its_socket_by_row_and_generation():
    host = make_host()
    loop_pair(host)
    out = [0] * 16
    n = host.events(out)
    assert n >= 1
    assert any(event & EV_STATE for event in out[:n])
    handle = out[0] >> EVENT_BITS
    assert host.net.sks.sk_state[handle & 0xFFFFFFFF] != 0
    assert host.events(out) == 0


def test_events_that_do_not_fit_stay_for_the_next_call():
    host = make_host()
    loop_pair(host)
    total = host.events([0] * 16)
    host = make_host()
    loop_pair(host)
    one = [0]
    assert sum(1 for _ in range(16) if host.events(one)) == total


def test_connect_many_begins_connections_without_descriptors():
    host = make_host()
    rows = [0] * 100
    assert host.connect_many(PEER, 80, 100, rows, now=5) == 100
    assert len({row.lport for row in host.sockets()}) == 100
    assert len(host.take_packets()) == 100
    assert host.task.files.table == {}
    for row in rows:
        host.close_row(row)
    assert host.net.sks.used == 0


def test_connect_many_stops_where_the_ports_end():
    host = make_host(sysctl={"net.ipv4.ip_local_port_range": "40000 40009"})
    rows = [0] * 20
    assert host.connect_many(PEER, 80, 20, rows) == 10
    assert host.connect_many(PEER, 80, 20, rows) == -errno.EADDRNOTAVAIL
    assert host.net.sks.used == 10


def test_transmit_packs_packets_and_keeps_what_does_not_fit():
    host = make_host()
    for _ in range(3):
        host.sys_connect(host.sys_socket(2, 1 | SOCK_NONBLOCK), DST)
    buf, offsets, lengths = bytearray(130), [0] * 8, [0] * 8
    assert host.transmit(buf, offsets, lengths, 8) == 2
    assert (offsets[:2], lengths[:2]) == ([0, 60], [60, 60])
    assert buf[0] == buf[60] == 0x45
    assert host.has_packets()
    assert host.transmit(buf, offsets, lengths, 8) == 1
    assert not host.has_packets()
    assert host.transmit(buf, offsets, lengths, 8) == 0


def test_transmit_to_offers_what_a_device_refused_again():
    host = make_host()
    host.connect_many(PEER, 80, 5, [0] * 5)
    offered = []

    def write_batch(buf, offsets, lengths, n):
        took = min(n, 2)
        offered.append(n)
        packets.extend(bytes(buf[offsets[i] : offsets[i] + lengths[i]]) for i in range(took))
        return took

    packets = []
    assert [host.transmit_to(write_batch) for _ in range(4)] == [2, 2, 1, 0]
    assert offered == [5, 3, 1]
    assert not host.has_packets()
    again = make_host()
    again.connect_many(PEER, 80, 5, [0] * 5)
    assert packets == [sent.packet for sent in again.take_packets()]


def test_events_that_waited_come_before_newer_ones():
    host = make_host()
    rows = [0] * 6
    host.connect_many(PEER, 80, 6, rows)
    for row in rows[:4]:
        net_event(host.net, row, EV_STATE)
    out = [0] * 3
    seen = []
    assert host.events(out) == 3
    seen += out
    for row in rows[4:]:
        net_event(host.net, row, EV_STATE)
    assert host.events(out) == 3
    seen += out
    assert [(event >> EVENT_BITS) & 0xFFFFFFFF for event in seen] == rows
    assert host.events(out) == 0


def test_a_timer_fires_at_its_own_due_time_however_late_it_is_run():
    host = make_host(now_us=0)
    host.sys_connect(host.sys_socket(2, 1 | SOCK_NONBLOCK), DST)
    assert host.next_timeout() == 1_000_000
    host.handle_timeout(2_500_000)
    assert [sent.time_us for sent in host.take_packets()] == [0, 1_000_000, 2_000_000]
    assert host.now_us == 2_500_000


def test_a_late_timer_sends_with_the_time_at_which_it_runs():
    host = make_host(now_us=0)
    host.sys_connect(host.sys_socket(2, 1 | SOCK_NONBLOCK), DST)
    host.take_packets()
    host.handle_timeout(1_065_000, late=True)
    (syn,) = host.take_packets()
    assert syn.time_us == 1_065_000
    first = make_host(now_us=0)
    first.sys_connect(first.sys_socket(2, 1 | SOCK_NONBLOCK), DST)
    tsval = slice(48, 52)  # of mss, sackOK, TS, nop, wscale
    (original,) = first.take_packets()
    assert int.from_bytes(syn.packet[tsval]) - int.from_bytes(original.packet[tsval]) == 1065
    assert host.next_timeout() == 1_065_000 + 1_000_000  # linear: armed anew from when it ran


def test_time_does_not_run_back():
    host = make_host(now_us=10)
    with pytest.raises(ValueError, match="time runs back"):
        host.sys_connect(host.sys_socket(), DST, now=9)


def test_two_hosts_of_one_machine_share_the_port_sequence():
    machine = Machine(3)
    a, b = make_host(machine=machine), make_host(machine=machine)
    ports = []
    for host in (a, b) * 10:
        fd = host.sys_socket(2, 1 | SOCK_NONBLOCK)
        host.sys_connect(fd, DST)
        ports.append(sockaddr_in(host.sys_getsockname(fd))[1])
    steps = [(y - x) % 28232 for x, y in itertools.pairwise(ports)]
    assert all(2 <= step <= 16 and step % 2 == 0 for step in steps)


def test_what_configuration_gets_wrong_is_an_exception_with_linux_errno():
    host = make_host()
    with pytest.raises(OSError) as error:
        host.set_sysctl("net.ipv4.tcp_syn_retries", "0")
    assert error.value.errno == errno.EINVAL
    with pytest.raises(FileNotFoundError):
        host.get_sysctl("net.ipv4.no_such_thing")


def test_a_socket_in_time_wait_still_has_the_port_that_it_was_bound_to():
    host = make_host()
    fd = host.sys_socket(2, 1 | SOCK_NONBLOCK)
    own = pack_sockaddr_in(parse_ipv4("10.9.0.1"), 5000)
    host.sys_bind(fd, own)
    host.sys_connect(fd, own)  # a self-connect: both ends close with one FIN
    host.sys_shutdown(fd, 1)
    assert [row.state for row in host.sockets()] == ["TIME_WAIT"]
    assert host.sys_bind(fd, pack_sockaddr_in(0, 5001)) == -errno.EINVAL
    host.sys_close(fd)
    host.handle_timeout(61_000_000)
    assert host.sys_bind(host.sys_socket(), own) == 0


def test_a_socket_bound_to_broadcast_takes_the_source_of_its_first_connection_for_good():
    host = make_host()
    fd = host.sys_socket(2, 1 | SOCK_NONBLOCK)
    assert host.sys_bind(fd, pack_sockaddr_in(parse_ipv4("10.9.0.255"), 5000)) == 0
    assert host.sys_connect(fd, pack_sockaddr_in(LOOP, 9)) == -errno.EINPROGRESS
    assert host.sys_connect(fd, pack_sockaddr_in(LOOP, 9)) == -errno.ECONNREFUSED
    assert host.sys_connect(fd, DST) == -errno.EINVAL  # from 127.0.0.1, off the host


def test_children_of_a_socket_that_was_shut_before_it_listened_are_shut_too():
    host = make_host()
    listener = host.sys_socket()
    assert host.sys_shutdown(listener, 1) == -errno.ENOTCONN
    host.sys_bind(listener, pack_sockaddr_in(LOOP, 7000))
    host.sys_listen(listener, 5)
    client = host.sys_socket()
    assert host.sys_connect(client, pack_sockaddr_in(LOOP, 7000)) == 0
    assert host.sys_recv(client, 10) == b""


def test_a_handshake_that_a_listener_has_begun_is_listed():
    host = make_host()
    listener = host.sys_socket()
    host.sys_bind(listener, pack_sockaddr_in(0, 7000))
    host.sys_listen(listener, 5)
    host.receive_packet(ko.tcp4("10.9.0.2", "10.9.0.1", 1234, 7000, 1, 0, "S"))
    rows = {row.state: row for row in host.sockets()}
    assert rows["SYN_RECV"] == ("SYN_RECV", parse_ipv4("10.9.0.1"), 7000, PEER, 1234)

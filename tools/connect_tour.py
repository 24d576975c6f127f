"""The words of docs/connect.md: the rooms of the path, and what each function of it decides.

Lives here: prose, and which run shows each function at work.  Names, files, callers, errnos and former names come
from fourtuple.kernel_map; the runs from connect_examples.py; the page is put together by make_connect_md.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from fourtuple import kernel_map as km


@dataclass(frozen=True)
class Stop:
    """One function of the tour."""

    fn: int
    decides: str
    run: str = "plain"
    """Which runs of connect_examples.py show it."""
    shown_by: int = 0
    """The function whose line tells of it, where it has no line of its own."""
    lines: int = 1
    """How many of its lines to show, of each run."""
    rows: str = ""
    rfc: str = ""


@dataclass(frozen=True)
class Room:
    """A part of the way; `home` is the directory of ours."""

    title: str
    home: str
    about: str
    stops: tuple[Stop, ...]


# fmt: off
ROOMS: tuple[Room, ...] = (
    Room("The system call", "`sock/`",
        "A program has a number and an address. This room finds out what the number stands for, and whether a "
        "connect() makes sense in its state. Nothing about TCP is known here yet.", (
        Stop(km.FN_SYS_CONNECT,
            "Entry. The descriptor is looked up, then the address is copied, then the file is asked whether it is a "
            "socket: with several things wrong, the errno is that of the first one in this order.",
            rows="ERR-01 to ERR-06"),
        Stop(km.FN_SOCKFD_LOOKUP,
            "The chain behind the number: descriptor → `file` (O_NONBLOCK lives there, dup() shares it) → `socket` "
            "(with its SS_* state) → `sock` (with its TCP state).",
            rows="ERR-01, ERR-02, ERR-03"),
        Stop(km.FN_INET_STREAM_CONNECT,
            "Takes the socket lock and looks at the SS_* state. SS_UNCONNECTED: begin, by way of `sk_prot->connect`. "
            "SS_CONNECTING: an attempt is under way, look how it stands. SS_CONNECTED: there is nothing to do. "
            "AF_UNSPEC instead of an address disconnects.",
            rows="ERR-07, ERR-10 to ERR-16, ST-16, ST-25", rfc="RFC 9293, 3.9.1.1 (OPEN)"),
    )),
    Room("TCP's own connect", "`tcp/`, `ip/`",
        "Where the packet would go, and from which address. The state becomes SYN_SENT before there is a port, a "
        "sequence number or a packet: the socket is to be found in the tables by the time an answer can come.", (
        Stop(km.FN_TCP_V4_CONNECT,
            "The order of everything that follows: route, source address, state, port, sequence number, SYN. What "
            "fails after the state was set puts it back to CLOSE.",
            rows="ERR-08, ERR-09, ERR-17, ERR-19, ERR-20", rfc="RFC 9293, 3.9.1.1"),
        Stop(km.FN_IP_ROUTE_CONNECT,
            "The route to the destination names the device; unless bind() has fixed it, the source address is the "
            "route's preferred one. An automatic source is forgotten again when the attempt fails.",
            rows="ERR-17, ERR-18, ERR-21, ERR-22, ERR-25, SRC-01 to SRC-10"),
        Stop(km.FN_TCP_SET_STATE,
            "CLOSE → SYN_SENT, early. Later calls of it are the milestones of the attempt: ESTABLISHED, or CLOSE.",
            rows="ST-02", rfc="RFC 9293, 3.3.2 (the state diagram)"),
    )),
    Room("The port", "`inet/`",
        "A local port is free for this destination as long as the four-tuple (source, its port, destination, its "
        "port) does not exist; one port serves many destinations. Two tables tell: **bhash**, by local port, and "
        "**ehash**, by four-tuple. The kernel tries candidates one by one. So does a traced run here; without a trace "
        "the same port is found in bit sets, at nearly the same cost however full the range is "
        "([design.md](design.md#the-port-of-the-kernels-scan-without-the-scan)).", (
        Stop(km.FN_INET_HASH_CONNECT,
            "Where the search starts: a SipHash of source, destination and destination port under a key of this boot. "
            "The key makes ports hard to guess, the hash spreads destinations, and every 10 s the hash is another one. "
            "With a port from bind() there is no search.",
            rows="PORT-40, PORT-41, PORT-48", rfc="RFC 6056, 3.3.4 (double-hash port selection)"),
        Stop(km.FN__INET_HASH_CONNECT,
            "The circular scan. `table_perturb`, of 65,536 entries, is added to the start and moves on with every "
            "success. First all ports with the parity of the range's lower bound, then the others, which are left to "
            "bind(): this is why a connect() past half full walks over 14,116 ports before it finds one. "
            "IP_LOCAL_PORT_RANGE on the socket: no parity, step 1.",
            rows="PORT-01 to PORT-08, PORT-27, PORT-44, PORT-49", rfc="RFC 6056, 3.3"),
        Stop(km.FN_PORT_LOOK,
            "One candidate and the first rule that decides, in this order: reserved by a sysctl; its bucket was made "
            "by a bind() (`fastreuse` or `fastreuseport` is not -1): taken for every destination; its bucket is "
            "connect()'s: the four-tuple decides; no bucket: free.",
            run="crowded", lines=5, rows="PORT-09 to PORT-26, TW-11"),
        Stop(km.FN__INET_CHECK_ESTABLISHED,
            "Does this four-tuple exist in ehash? A socket there, even one in SYN_SENT, says no; a TIME_WAIT is asked "
            "whether it may be taken over. If not, the sock enters ehash in the same step, so that two threads cannot "
            "get the same tuple.",
            run="bound", rows="ERR-27, PORT-10, PORT-11, PORT-15"),
        Stop(km.FN_TCP_TWSK_UNIQUE,
            "May this TIME_WAIT be taken over? It must have had timestamps, and tcp_tw_reuse must allow it: 0 never, 1 "
            "after tcp_tw_reuse_delay (1 s), 2 (the default) so on loopback only. The new sequence number starts "
            "beyond the old ones.",
            run="reused", shown_by=km.FN_PORT_LOOK, rows="TW-01 to TW-08, TW-13", rfc="RFC 6191"),
        Stop(km.FN_INET_BIND_BUCKET_CREATE,
            "Nobody has the port: it gets a bucket, marked as made by connect(), which others may join with their "
            "own four-tuples.",
            shown_by=km.FN_PORT_LOOK, rows="ERR-30, PORT-22 to PORT-24"),
        Stop(km.FN_PORT_FOUND,
            "The result. A success adds the distance walked, or a random small step if that is more, to "
            "`table_perturb`: consecutive connects do not get consecutive ports. A failure changes nothing, and no "
            "counter of the kernel tells of it.",
            run="crowded full", rows="PORT-03, PORT-49, OBS-05"),
    )),
    Room("The SYN", "`tcp/`, `ip/`",
        "Now the four-tuple is known, and the first packet can be made. It is queued before it is sent: until it is "
        "acknowledged it may have to go out again.", (
        Stop(km.FN_SECURE_TCP_SEQ_AND_TS_OFF,
            "The initial sequence number: a keyed hash of the four-tuple plus a clock that ticks every 64 ns. Nobody "
            "outside can guess it, and two connections of one tuple do not overlap. The offset of the timestamps comes "
            "from the same hash.",
            rows="SYN-18, SYN-19, ST-32", rfc="RFC 6528; RFC 7323, 5.4"),
        Stop(km.FN_TCP_CONNECT,
            "MSS from the route's MTU, window and window scale from the buffer's size, options from the sysctls: all "
            "that the SYN says. It goes to the write queue, out, and the timer is armed.",
            rows="SYN-01, SYN-06 to SYN-16, ERR-26", rfc="RFC 9293, 3.7.1; RFC 7323; RFC 2018"),
        Stop(km.FN_TCP_TRANSMIT_SKB,
            "Writes the TCP header, its options and the checksum. Each segment of the connection passes here.",
            rows="SYN-01, SYN-17", rfc="RFC 9293, 3.1"),
        Stop(km.FN_IP_QUEUE_XMIT,
            "The IP header: TTL, TOS, DF, id. Then it is the device's, or, for an own address, it waits in the "
            "backlog until the call is over.",
            rows="SYN-02 to SYN-05, SYN-23, ERR-23"),
        Stop(km.FN_TCP_RESET_XMIT_TIMER,
            "If nothing answers within TCP_TIMEOUT_INIT, 1 s (3 s before Linux 3.1), "
            "`tcp_retransmit_timer` runs.",
            rows="RTX-01, RTX-14", rfc="RFC 6298, 2.1"),
        Stop(km.FN_INET_WAIT_FOR_CONNECT,
            "With O_NONBLOCK the call returns EINPROGRESS here. A blocking one gives up the lock and sleeps until the "
            "state changes, a signal comes, or SO_SNDTIMEO is over. Neither of the latter ends the attempt.",
            rows="ST-14 to ST-19, RSP-34"),
    )),
    Room("The way back", "`ip/`, `tcp/`",
        "The SYN-ACK comes up from the device and finds, through ehash, the sock that the way down has put there.", (
        Stop(km.FN_IP_RCV,
            "Header, checksum, length; is the destination address ours?"),
        Stop(km.FN_TCP_V4_RCV,
            "The TCP checksum, then the owner: ehash first, then listeners. While a system call holds the socket the "
            "segment waits in its backlog.",
            rows="RSP-20, RSP-31"),
        Stop(km.FN_INET_LOOKUP_ESTABLISHED,
            "The four-tuple of the packet, read from the other side, is the key: one look, however many connections "
            "there are.",
            rows="RSP-21"),
        Stop(km.FN_TCP_RCV_STATE_PROCESS,
            "Every state except ESTABLISHED and TIME_WAIT; SYN_SENT has a function of its own.",
            rfc="RFC 9293, 3.10.7"),
        Stop(km.FN_TCP_RCV_SYNSENT_STATE_PROCESS,
            "First the ACK: one that is not for our SYN gets a RST, and the SYN goes again at once. Then RST: refused. "
            "Then SYN: with ACK the connection stands; without, both sides have sent one (simultaneous open), and "
            "SYN_RECV follows. Anything else is dropped. The options of the SYN-ACK say what may be used.",
            rows="RSP-01 to RSP-19, RSP-23, RSP-33", rfc="RFC 9293, 3.10.7.3"),
        Stop(km.FN_TCP_FINISH_CONNECT,
            "ESTABLISHED; congestion window and buffers get their first sizes, whoever sleeps or polls is woken. The "
            "round trip is measured, unless the SYN was sent more than once without timestamps to tell which was "
            "answered.",
            rows="RSP-28, RSP-34, OBS-01", rfc="RFC 6298, 3 (Karn)"),
        Stop(km.FN_TCP_SEND_ACK,
            "The third packet. Data that waits may carry the ACK instead.",
            rows="RSP-01, RSP-29, ST-31"),
        Stop(km.FN_CONNECT_RETURNS,
            "The sleeper wakes, takes the lock, finds ESTABLISHED (0) or an error, and SS_CONNECTING becomes "
            "SS_CONNECTED. After a failure the same descriptor can connect again.",
            rows="ERR-13 to ERR-16"),
    )),
    Room("Nobody answers", "`tcp/`",
        "The timer fires. `fourtuple syn-schedule` draws the whole schedule for any kernel, sysctls and options.", (
        Stop(km.FN_TCP_RETRANSMIT_TIMER,
            "Give up, or send again and wait longer: the timeout doubles, except for the first "
            "tcp_syn_linear_timeouts (4) times, up to TCP_RTO_MAX (120 s).",
            run="silent", rows="RTX-01 to RTX-07, RTX-12, OBS-02", rfc="RFC 6298, 5.5"),
        Stop(km.FN_TCP_WRITE_TIMEOUT,
            "Enough? tcp_syn_retries (TCP_SYNCNT on the socket) plus the linear ones are used up, or the time that "
            "doubling would have taken is over, or TCP_USER_TIMEOUT is.",
            run="silent", rows="RTX-03 to RTX-11, RTX-18, RTX-19", rfc="RFC 5482; RFC 1122, 4.2.3.5"),
        Stop(km.FN_TCP_RETRANSMIT_SKB,
            "The same SYN again: ports, sequence number and options as before, a new timestamp, the next IP id; ECN is "
            "no longer asked for.",
            run="silent", rows="SYN-16, SYN-17, RTX-20"),
        Stop(km.FN_TCP_WRITE_ERR,
            "The end without an answer. No packet tells the peer.",
            run="silent", rows="RTX-16, RTX-17, OBS-04"),
    )),
    Room("Somebody says no", "`tcp/`, `ip/`",
        "A RST from the host, or an ICMP message from somewhere on the path. Either must prove that it has seen the "
        "SYN: by its sequence number.", (
        Stop(km.FN_TCP_RESET,
            "A RST that acknowledges our SYN. In SYN_SENT it means: nobody listens there.",
            run="refused", rows="RSP-06 to RSP-10, RSP-25, OBS-03", rfc="RFC 9293, 3.5.3"),
        Stop(km.FN_ICMP_RCV,
            "ICMP finds the connection by the headers that it quotes: eight bytes of TCP are enough. Redirects, source "
            "quench and quotes of unknown connections are ignored.",
            run="unreachable", shown_by=km.FN_IP_RCV, rows="ICMP-03, ICMP-06, ICMP-10, ICMP-11", rfc="RFC 792"),
        Stop(km.FN_TCP_V4_ERR,
            "In SYN_SENT every ICMP error that has an errno ends the attempt at once, soft ones too; in ESTABLISHED it "
            "is only remembered. \"Fragmentation needed\" makes the next SYN offer a smaller MSS.",
            run="unreachable", rows="ICMP-01 to ICMP-09, ICMP-12", rfc="RFC 1122, 4.2.3.9; RFC 5927, 4.1"),
        Stop(km.FN_TCP_DONE,
            "CLOSE, out of ehash and bhash: an automatic port is free again at once; one that bind() was given stays.",
            run="refused", rows="ST-04, ST-05, PORT-36 to PORT-38"),
    )),
    Room("bind() first", "`sock/`, `inet/`",
        "A port that bind() picks is picked without knowing the destination. It is shared with nobody, and connect() "
        "has no choice left. To fix only the address, set IP_BIND_ADDRESS_NO_PORT before bind(): the port is then "
        "chosen by connect().", (
        Stop(km.FN_SYS_BIND, "bind(2): the same way in.", run="bound"),
        Stop(km.FN_INET_BIND,
            "Is the address ours, may this user have the port? With IP_BIND_ADDRESS_NO_PORT it ends here.",
            run="bound", rows="PORT-14, PORT-45, SRC-02, SRC-03"),
        Stop(km.FN_INET_CSK_GET_PORT,
            "Takes the port, or finds one: first of the parity that connect() uses last. SO_REUSEADDR and SO_REUSEPORT "
            "on both sides let sockets share it. Its bucket is closed to every connect() that looks for a port.",
            run="bound", rows="PORT-12, PORT-13, PORT-16 to PORT-24, PORT-30 to PORT-33, PORT-39"),
    )),
)
# fmt: on

TOURED = frozenset(stop.fn for room in ROOMS for stop in room.stops)

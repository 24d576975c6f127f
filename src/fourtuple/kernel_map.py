"""The map: each kernel function on the path of connect(), where its job is done here, and what a trace of it says.

Lives here: plain data.  The tracer's function numbers (FN_*), the kernel's name and file for each, ours as
`module:function` below `fourtuple`, the functions that call it (the first one gives its place in the tour), the
meaning of the four numbers of its trace record, and one line on what it does.  docs/connect.md and tests are made
from it.
Does not live here: any behaviour; the formatting of a trace (cli/render.py).

Rules
1. Names are those of Linux 6.18.  `inlined`: the compiler leaves no symbol of that name in a 6.18 kernel (or it is a
   step inside a function, then the name has a space in it); all others are in its BTF, a test asks.
2. `formers`: names in older kernels, each with its source; a profile prints the name that its version had.
3. Numbers are never reused; new ones are added at the end.
"""

from __future__ import annotations

from typing import NamedTuple

FN_SYS_CONNECT = 1
FN_SOCKFD_LOOKUP = 2
FN_INET_STREAM_CONNECT = 3
FN_TCP_V4_CONNECT = 4
FN_IP_ROUTE_CONNECT = 5
FN_TCP_SET_STATE = 6
FN_INET_HASH_CONNECT = 7
FN__INET_HASH_CONNECT = 8
FN_PORT_LOOK = 9
FN__INET_CHECK_ESTABLISHED = 10
FN_TCP_TWSK_UNIQUE = 11
FN_INET_BIND_BUCKET_CREATE = 12
FN_PORT_FOUND = 13
FN_SECURE_TCP_SEQ_AND_TS_OFF = 14
FN_TCP_CONNECT = 15
FN_TCP_TRANSMIT_SKB = 16
FN_IP_QUEUE_XMIT = 17
FN_TCP_RESET_XMIT_TIMER = 18
FN_INET_WAIT_FOR_CONNECT = 19
FN_CONNECT_RETURNS = 20
FN_TCP_RETRANSMIT_TIMER = 21
FN_TCP_WRITE_TIMEOUT = 22
FN_TCP_RETRANSMIT_SKB = 23
FN_TCP_WRITE_ERR = 24
FN_TCP_DELACK_TIMER = 25
FN_TCP_KEEPALIVE_TIMER = 26
FN_TCP_PROBE_TIMER = 27
FN_IP_RCV = 28
FN_TCP_V4_RCV = 29
FN_INET_LOOKUP_ESTABLISHED = 30
FN_INET_LOOKUP_LISTENER = 31
FN_TCP_RCV_STATE_PROCESS = 32
FN_TCP_RCV_SYNSENT_STATE_PROCESS = 33
FN_TCP_ACK = 34
FN_TCP_FINISH_CONNECT = 35
FN_TCP_SEND_ACK = 36
FN_TCP_SEND_SYNACK = 37
FN_TCP_RESET = 38
FN_TCP_DONE = 39
FN_TCP_V4_SEND_RESET = 40
FN_ICMP_RCV = 41
FN_TCP_V4_ERR = 42
FN_TCP_CONN_REQUEST = 43
FN_TCP_V4_SYN_RECV_SOCK = 44
FN_TCP_SENDMSG = 45
FN_TCP_WRITE_XMIT = 46
FN_TCP_RCV_ESTABLISHED = 47
FN_TCP_DATA_QUEUE = 48
FN_TCP_RECVMSG = 49
FN_TCP_FIN = 50
FN_TCP_CLOSE = 51
FN_TCP_SEND_FIN = 52
FN_TCP_SHUTDOWN = 53
FN_TCP_DISCONNECT = 54
FN_TCP_TIME_WAIT = 55
FN_TCP_TIMEWAIT_STATE_PROCESS = 56
FN_SYS_BIND = 57
FN_INET_BIND = 58
FN_INET_CSK_GET_PORT = 59
FN_INET_CSK_LISTEN_START = 60
FN_INET_CSK_ACCEPT = 61

# Verdicts of FN_PORT_LOOK, and what its `detail` holds.
LOOK_RESERVED = 1
"""In ip_local_reserved_ports."""
LOOK_BUCKET_BOUND = 2
"""The bucket has fastreuse >= 0 or fastreuseport >= 0: a bind() holds the port. detail: an owner (row << 1 | is_tw)."""
LOOK_ESTABLISHED = 3
"""The four-tuple is in ehash. detail: its owner (row << 1 | is_tw)."""
LOOK_TIME_WAIT = 4
"""A TIME_WAIT has the four-tuple and may not be taken over yet. detail: ms until it ends."""
LOOK_TW_REUSED = 5
"""A TIME_WAIT had the four-tuple and is taken over. detail: its age in ms."""
LOOK_FREE = 6
"""Nobody has the port: a bucket is created."""
LOOK_JOINED = 7
"""Other connections share the port; this four-tuple is free. detail: one of them (row << 1 | is_tw), 0 if unknown."""

LOOK_NAMES = {
    LOOK_RESERVED: "reserved",
    LOOK_BUCKET_BOUND: "bucket_bound",
    LOOK_ESTABLISHED: "established",
    LOOK_TIME_WAIT: "time_wait",
    LOOK_TW_REUSED: "tw_reused",
    LOOK_FREE: "free",
    LOOK_JOINED: "joined",
}


class Former(NamedTuple):
    """A name that a function had in older kernels, or the name of the one that did its job."""

    before: str
    """First Linux version that does not have it any more."""
    name: str
    source: str
    """What says so: the commit that changed it, or a file of a version."""
    kernel_file: str = ""
    """Where it was; "": where it is now."""


def version(text: str) -> tuple[int, ...]:
    """'6.18' -> (6, 18), which is later than '6.5'."""
    return tuple(int(part) for part in text.split("."))


class KernelFunction:
    """One line of the map; see the module."""

    __slots__ = ("args", "callers", "fn", "formers", "inlined", "kernel_file", "meaning", "name", "ours")

    def __init__(
        self,
        fn: int,
        name: str,
        kernel_file: str,
        ours: str,
        callers: tuple[int, ...],
        args: str,
        meaning: str,
        inlined: bool = False,
        formers: tuple[Former, ...] = (),
    ) -> None:
        self.fn = fn
        self.name = name
        self.kernel_file = kernel_file
        self.ours = ours
        self.callers = callers
        self.args = args
        self.meaning = meaning
        self.inlined = inlined
        self.formers = formers
        """Oldest first."""

    def name_in(self, profile: str) -> str:
        """The name in that Linux version ("6.18", "3.10", ...); later versions than 6.18 have its names."""
        return next((former.name for former in self.formers if version(profile) < version(former.before)), self.name)

    @property
    def is_step(self) -> bool:
        """A step inside a function, not a function."""
        return " " in self.name


# fmt: off
FUNCTIONS: tuple[KernelFunction, ...] = (
    KernelFunction(FN_SYS_CONNECT, "__sys_connect",
        "net/socket.c", "sock.syscall:sys_connect",
        (),
        "fd, daddr, dport, 1 = O_NONBLOCK",
        "connect(2): the descriptor is still an int, the address still the caller's",
        formers=(Former("4.17", "sys_connect", 'commit "net: socket: add __sys_connect() helper"'),)),
    KernelFunction(FN_SOCKFD_LOOKUP, "sock_from_file",
        "net/socket.c", "sock.syscall:sockfd_lookup",
        (FN_SYS_CONNECT, FN_SYS_BIND),
        "fd, sk, SS_*, sk_state",
        "descriptor -> file -> socket -> sock; EBADF and ENOTSOCK come from here",
        formers=(Former("5.5", "sockfd_lookup_light", 'commit "net: add __sys_connect_file() helper"'),)),
    KernelFunction(FN_INET_STREAM_CONNECT, "inet_stream_connect",
        "net/ipv4/af_inet.c", "sock.af_inet:inet_stream_connect",
        (FN_SYS_CONNECT,),
        "SS_*, sk_state",
        "takes the socket lock; the SS_* states decide: start, EALREADY, EISCONN"),
    KernelFunction(FN_TCP_V4_CONNECT, "tcp_v4_connect",
        "net/ipv4/tcp_ipv4.c", "tcp.ipv4:tcp_v4_connect",
        (FN_INET_STREAM_CONNECT, FN_TCP_SENDMSG),
        "daddr, dport, bound port or 0",
        "TCP's own connect: route, source address, state, port, sequence number, SYN"),
    KernelFunction(FN_IP_ROUTE_CONNECT, "ip_route_connect",
        "include/net/route.h", "ip.route:ip_route_connect",
        (FN_TCP_V4_CONNECT,),
        "0 | -errno, saddr, ifindex, gateway or 0",
        "the route: which device, and from it the source address", inlined=True),
    KernelFunction(FN_TCP_SET_STATE, "tcp_set_state",
        "net/ipv4/tcp.c", "tcp.tcp:tcp_set_state",
        (FN_TCP_V4_CONNECT, FN_TCP_FINISH_CONNECT, FN_TCP_DONE, FN_TCP_RCV_SYNSENT_STATE_PROCESS,
         FN_TCP_RCV_STATE_PROCESS, FN_TCP_DISCONNECT, FN_TCP_CLOSE, FN_TCP_FIN, FN_INET_CSK_LISTEN_START,
         FN_TCP_V4_SYN_RECV_SOCK),
        "old state, new state",
        "SYN_SENT is set before any packet exists: the socket is hashed and may receive"),
    KernelFunction(FN_INET_HASH_CONNECT, "inet_hash_connect",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:inet_hash_connect",
        (FN_TCP_V4_CONNECT,),
        "port offset (u32), bound port or 0",
        "where the search starts: a keyed hash of (saddr, daddr, dport)"),
    KernelFunction(FN__INET_HASH_CONNECT, "__inet_hash_connect",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:_inet_hash_connect",
        (FN_INET_HASH_CONNECT,),
        "low, high (inclusive), first offset, step (0: a is the bound port)",
        "the circular scan for a port: one parity of the range, then the other"),
    KernelFunction(FN_PORT_LOOK, "port look",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:_inet_hash_connect",
        (FN__INET_HASH_CONNECT,),
        "port, verdict LOOK_*, detail",
        "one port looked at, and the rule that decided", inlined=True),
    KernelFunction(FN__INET_CHECK_ESTABLISHED, "__inet_check_established",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:_inet_check_established",
        (FN__INET_HASH_CONNECT,),
        "port, 0 | -errno, owner (row << 1 | is_tw)",
        "is this exact four-tuple in ehash already? A TIME_WAIT may be taken over"),
    KernelFunction(FN_TCP_TWSK_UNIQUE, "tcp_twsk_unique",
        "net/ipv4/tcp_ipv4.c", "inet.hashtables:tcp_twsk_unique",
        (FN__INET_CHECK_ESTABLISHED,),
        "tw, 1 = may be reused, ms in TIME_WAIT, tcp_tw_reuse",
        "may this TIME_WAIT be taken over? Timestamps and age decide"),
    KernelFunction(FN_INET_BIND_BUCKET_CREATE, "inet_bind_bucket_create",
        "net/ipv4/inet_hashtables.c", "inet.bind:bucket_join",
        (FN__INET_HASH_CONNECT, FN_INET_CSK_GET_PORT),
        "port",
        "nobody had the port: a bucket for it, marked as connect()'s"),
    KernelFunction(FN_PORT_FOUND, "port found",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:_inet_hash_connect",
        (FN__INET_HASH_CONNECT,),
        "port | -errno, candidates passed over, added to table_perturb",
        "the result of the search; a success moves the start of the next one", inlined=True),
    KernelFunction(FN_SECURE_TCP_SEQ_AND_TS_OFF, "secure_tcp_seq_and_ts_off",
        "net/core/secure_seq.c", "inet.secure_seq:secure_tcp_seq_and_ts_off",
        (FN_TCP_V4_CONNECT,),
        "isn, timestamp offset",
        "initial sequence number: keyed hash of the four-tuple + a clock of 64 ns",
        formers=(
            Former("3.1", "secure_tcp_sequence_number", "2.6.32 net/ipv4/tcp_ipv4.c: tcp_v4_connect",
                   "drivers/char/random.c"),
            Former("4.13", "secure_tcp_sequence_number", "commit 84b114b98452"),
            Former("6.18", "secure_tcp_seq", "commit 165573e41f2f, which 6.18.y has too"),
        )),
    KernelFunction(FN_TCP_CONNECT, "tcp_connect",
        "net/ipv4/tcp_output.c", "tcp.output:tcp_connect",
        (FN_TCP_V4_CONNECT,),
        "advertised mss, window, wscale, options TS 1 | SACK 2 | WSCALE 4",
        "builds the SYN, queues it on sk_write_queue, sends it, arms the timer"),
    KernelFunction(FN_TCP_TRANSMIT_SKB, "tcp_transmit_skb",
        "net/ipv4/tcp_output.c", "tcp.output:tcp_transmit_skb",
        (FN_TCP_CONNECT, FN_TCP_RETRANSMIT_SKB, FN_TCP_WRITE_XMIT, FN_TCP_SEND_ACK, FN_TCP_SEND_FIN),
        "flags, seq, ack, payload bytes",
        "the TCP header with its options and checksum, then down to IP", inlined=True),
    KernelFunction(FN_IP_QUEUE_XMIT, "ip_local_out",
        "net/ipv4/ip_output.c", "ip.output:ip_local_out",
        (FN_TCP_TRANSMIT_SKB, FN_TCP_SEND_SYNACK, FN_TCP_V4_SEND_RESET),
        "packet bytes, ifindex, ttl, id",
        "the IP header; the packet leaves for the device"),
    KernelFunction(FN_TCP_RESET_XMIT_TIMER, "tcp_reset_xmit_timer",
        "include/net/tcp.h", "tcp.net:tcp_reset_xmit_timer",
        (FN_TCP_CONNECT, FN_TCP_RETRANSMIT_TIMER, FN_TCP_WRITE_XMIT, FN_TCP_ACK),
        "1 = retransmit 3 = probe0, us from now",
        "retransmission timer: if nothing answers, it fires", inlined=True,
        formers=(Former("6.15", "inet_csk_reset_xmit_timer", "commit 48b69b4c7e5d",
                        "include/net/inet_connection_sock.h"),)),
    KernelFunction(FN_INET_WAIT_FOR_CONNECT, "inet_wait_for_connect",
        "net/ipv4/af_inet.c", "sock.af_inet:inet_wait_for_connect",
        (FN_INET_STREAM_CONNECT,),
        "timeout us, -1 = none",
        "a blocking connect() sleeps until the state leaves SYN_SENT", inlined=True),
    KernelFunction(FN_CONNECT_RETURNS, "connect returns",
        "net/socket.c", "sock.syscall:sys_connect",
        (),
        "0 | -errno",
        "connect(2) returns", inlined=True),
    KernelFunction(FN_TCP_RETRANSMIT_TIMER, "tcp_retransmit_timer",
        "net/ipv4/tcp_timer.c", "tcp.timer:tcp_retransmit_timer",
        (),
        "retransmits so far, rto us, backoff, state",
        "nothing came back in time"),
    KernelFunction(FN_TCP_WRITE_TIMEOUT, "tcp_write_timeout",
        "net/ipv4/tcp_timer.c", "tcp.timer:tcp_write_timeout",
        (FN_TCP_RETRANSMIT_TIMER,),
        "1 = give up, retransmits, tries allowed",
        "tried often enough? Linear timeouts first, then the time that tcp_syn_retries stands for", inlined=True),
    KernelFunction(FN_TCP_RETRANSMIT_SKB, "tcp_retransmit_skb",
        "net/ipv4/tcp_output.c", "tcp.output_data:tcp_retransmit_skb",
        (FN_TCP_RETRANSMIT_TIMER, FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_ACK),
        "flags, seq, segments, total retransmits",
        "the head of the queue goes out again"),
    KernelFunction(FN_TCP_WRITE_ERR, "tcp_write_err",
        "net/ipv4/tcp_timer.c", "tcp.timer:tcp_write_err",
        (FN_TCP_WRITE_TIMEOUT, FN_TCP_RETRANSMIT_TIMER),
        "errno",
        "given up: ETIMEDOUT, or the soft error kept from an ICMP message", inlined=True),
    KernelFunction(FN_TCP_DELACK_TIMER, "tcp_delack_timer",
        "net/ipv4/tcp_timer.c", "tcp.timer:tcp_delack_timer",
        (),
        "",
        "the delayed ACK is due"),
    KernelFunction(FN_TCP_KEEPALIVE_TIMER, "tcp_keepalive_timer",
        "net/ipv4/tcp_timer.c", "tcp.timer:tcp_keepalive_timer",
        (),
        "probes out, state",
        "keepalive, or FIN_WAIT2 of an orphan, is due"),
    KernelFunction(FN_TCP_PROBE_TIMER, "tcp_probe_timer",
        "net/ipv4/tcp_timer.c", "tcp.timer:tcp_probe_timer",
        (),
        "probes out",
        "the peer's window is zero: probe it", inlined=True),
    KernelFunction(FN_IP_RCV, "ip_rcv",
        "net/ipv4/ip_input.c", "ip.input:ip_rcv",
        (),
        "packet bytes, source address, protocol, id",
        "a packet from the device: header checks, is it for us?"),
    KernelFunction(FN_TCP_V4_RCV, "tcp_v4_rcv",
        "net/ipv4/tcp_ipv4.c", "tcp.ipv4:tcp_v4_rcv",
        (FN_IP_RCV,),
        "flags, seq, ack, payload bytes",
        "a segment: checksum, then the socket by its four-tuple"),
    KernelFunction(FN_INET_LOOKUP_ESTABLISHED, "__inet_lookup_established",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:inet_lookup_established",
        (FN_TCP_V4_RCV, FN_TCP_V4_ERR),
        "owner (row << 1 | is_tw) or 0, source address, source port, our port",
        "ehash: which socket has this four-tuple?"),
    KernelFunction(FN_INET_LOOKUP_LISTENER, "__inet_lookup_listener",
        "net/ipv4/inet_hashtables.c", "inet.hashtables:inet_lookup_listener",
        (FN_TCP_V4_RCV,),
        "our address, our port (the record's sk is the listener, 0: none)",
        "no connection has it: does anybody listen there?"),
    KernelFunction(FN_TCP_RCV_STATE_PROCESS, "tcp_rcv_state_process",
        "net/ipv4/tcp_input.c", "tcp.input:tcp_rcv_state_process",
        (FN_TCP_V4_RCV,),
        "state, flags, seq, ack",
        "every state but ESTABLISHED and TIME_WAIT"),
    KernelFunction(FN_TCP_RCV_SYNSENT_STATE_PROCESS, "tcp_rcv_synsent_state_process",
        "net/ipv4/tcp_input.c", "tcp.input_synsent:tcp_rcv_synsent_state_process",
        (FN_TCP_RCV_STATE_PROCESS, FN_TCP_V4_RCV),
        "flags, seq, ack",
        "an answer to our SYN: is the ACK ours? RST, SYN-ACK or a crossing SYN", inlined=True),
    KernelFunction(FN_TCP_ACK, "tcp_ack",
        "net/ipv4/tcp_input.c", "tcp.input_ack:tcp_ack",
        (FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_RCV_STATE_PROCESS, FN_TCP_RCV_ESTABLISHED),
        "ack, snd_una before, snd_nxt, window field",
        "takes what is acknowledged off the retransmit queue, measures the round trip"),
    KernelFunction(FN_TCP_FINISH_CONNECT, "tcp_finish_connect",
        "net/ipv4/tcp_input.c", "tcp.input_synsent:tcp_finish_connect",
        (FN_TCP_RCV_SYNSENT_STATE_PROCESS,),
        "srtt us (0: no sample), snd_wnd, mss",
        "SYN_SENT -> ESTABLISHED; whoever waits is woken",
        formers=(Former("3.10", "tcp_rcv_synsent_state_process", "3.0 net/ipv4/tcp_input.c: part of that function"),)),
    KernelFunction(FN_TCP_SEND_ACK, "tcp_send_ack",
        "net/ipv4/tcp_output.c", "tcp.output:tcp_send_ack",
        (FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_RCV_ESTABLISHED, FN_TCP_RCV_STATE_PROCESS, FN_TCP_DELACK_TIMER,
         FN_TCP_DATA_QUEUE),
        "seq, ack",
        "the third packet of the handshake, or an ordinary ACK"),
    KernelFunction(FN_TCP_SEND_SYNACK, "tcp_send_synack",
        "net/ipv4/tcp_output.c", "tcp.output:tcp_send_synack",
        (FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_CONN_REQUEST),
        "seq, ack",
        "simultaneous open: a SYN crossed ours, it gets a SYN-ACK"),
    KernelFunction(FN_TCP_RESET, "tcp_reset",
        "net/ipv4/tcp_input.c", "tcp.tcp:tcp_reset",
        (FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_RCV_STATE_PROCESS, FN_TCP_RCV_ESTABLISHED),
        "state, errno",
        "a valid RST: ECONNREFUSED in SYN_SENT, ECONNRESET later"),
    KernelFunction(FN_TCP_DONE, "tcp_done",
        "net/ipv4/tcp.c", "tcp.tcp:tcp_done",
        (FN_TCP_RESET, FN_TCP_WRITE_ERR, FN_TCP_V4_ERR, FN_TCP_DISCONNECT, FN_TCP_RCV_STATE_PROCESS),
        "state before, errno",
        "the end: CLOSE, out of both hash tables, the port is given back"),
    KernelFunction(FN_TCP_V4_SEND_RESET, "tcp_v4_send_reset",
        "net/ipv4/tcp_ipv4.c", "tcp.ipv4:tcp_v4_send_reset",
        (FN_TCP_V4_RCV, FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_RCV_STATE_PROCESS),
        "source address, source port, ack",
        "a segment that nobody expects is answered by RST"),
    KernelFunction(FN_ICMP_RCV, "icmp_rcv",
        "net/ipv4/icmp.c", "ip.icmp:icmp_rcv",
        (FN_IP_RCV,),
        "type, code",
        "an ICMP message about one of our packets"),
    KernelFunction(FN_TCP_V4_ERR, "tcp_v4_err",
        "net/ipv4/tcp_ipv4.c", "tcp.ipv4:tcp_v4_err",
        (FN_ICMP_RCV,),
        "type, code, info",
        "ICMP error: fatal in SYN_SENT, a soft error once established"),
    KernelFunction(FN_TCP_CONN_REQUEST, "tcp_conn_request",
        "net/ipv4/tcp_input.c", "tcp.listen:tcp_conn_request",
        (FN_TCP_RCV_STATE_PROCESS, FN_TCP_V4_RCV),
        "source address, source port, requests waiting",
        "the server's side: a SYN for a listener",
        formers=(Former("3.17", "tcp_v4_conn_request", "commit 1fb6f159fd21", "net/ipv4/tcp_ipv4.c"),)),
    KernelFunction(FN_TCP_V4_SYN_RECV_SOCK, "tcp_v4_syn_recv_sock",
        "net/ipv4/tcp_ipv4.c", "tcp.listen:tcp_v4_syn_recv_sock",
        (FN_TCP_RCV_STATE_PROCESS, FN_TCP_V4_RCV),
        "child sk",
        "the server's side: the handshake is complete, a socket of its own"),
    KernelFunction(FN_TCP_SENDMSG, "tcp_sendmsg",
        "net/ipv4/tcp.c", "tcp.sendmsg:tcp_sendmsg",
        (),
        "bytes asked, state",
        "send(2): data onto the write queue"),
    KernelFunction(FN_TCP_WRITE_XMIT, "tcp_write_xmit",
        "net/ipv4/tcp_output.c", "tcp.output_data:tcp_write_xmit",
        (FN_TCP_SENDMSG, FN_TCP_RCV_ESTABLISHED, FN_TCP_RCV_STATE_PROCESS),
        "segments sent, segments waiting, cwnd, snd_wnd",
        "sends what window and congestion control allow"),
    KernelFunction(FN_TCP_RCV_ESTABLISHED, "tcp_rcv_established",
        "net/ipv4/tcp_input.c", "tcp.input:tcp_rcv_established",
        (FN_TCP_V4_RCV,),
        "flags, seq, ack, payload bytes",
        "the ordinary segment of an open connection"),
    KernelFunction(FN_TCP_DATA_QUEUE, "tcp_data_queue",
        "net/ipv4/tcp_input.c", "tcp.input_data:tcp_data_queue",
        (FN_TCP_RCV_ESTABLISHED, FN_TCP_RCV_STATE_PROCESS),
        "seq, bytes, rcv_nxt before",
        "payload into the receive queue"),
    KernelFunction(FN_TCP_RECVMSG, "tcp_recvmsg",
        "net/ipv4/tcp.c", "tcp.recvmsg:tcp_recvmsg",
        (),
        "bytes asked, state",
        "recv(2): from the receive queue to the caller"),
    KernelFunction(FN_TCP_FIN, "tcp_fin",
        "net/ipv4/tcp_input.c", "tcp.input_data:tcp_fin",
        (FN_TCP_DATA_QUEUE, FN_TCP_RCV_ESTABLISHED, FN_TCP_RCV_STATE_PROCESS),
        "state before",
        "the peer sends no more"),
    KernelFunction(FN_TCP_CLOSE, "tcp_close",
        "net/ipv4/tcp.c", "tcp.close:tcp_close",
        (),
        "state, unread bytes",
        "close(2): FIN, or RST when data was left unread"),
    KernelFunction(FN_TCP_SEND_FIN, "tcp_send_fin",
        "net/ipv4/tcp_output.c", "tcp.output_data:tcp_send_fin",
        (FN_TCP_CLOSE, FN_TCP_SHUTDOWN),
        "seq",
        "FIN behind the last byte"),
    KernelFunction(FN_TCP_SHUTDOWN, "tcp_shutdown",
        "net/ipv4/tcp.c", "tcp.close:tcp_shutdown",
        (),
        "how, state",
        "shutdown(2)"),
    KernelFunction(FN_TCP_DISCONNECT, "tcp_disconnect",
        "net/ipv4/tcp.c", "tcp.tcp:tcp_disconnect",
        (),
        "state",
        "back to an unconnected socket that can be used again"),
    KernelFunction(FN_TCP_TIME_WAIT, "tcp_time_wait",
        "net/ipv4/tcp_minisocks.c", "tcp.minisocks:tcp_time_wait",
        (FN_TCP_RCV_STATE_PROCESS, FN_TCP_FIN),
        "state, us",
        "the four-tuple stays taken for 60 s, the socket does not"),
    KernelFunction(FN_TCP_TIMEWAIT_STATE_PROCESS, "tcp_timewait_state_process",
        "net/ipv4/tcp_minisocks.c", "tcp.minisocks:tcp_timewait_state_process",
        (FN_TCP_V4_RCV,),
        "substate, flags, seq, 1 = PAWS refused it",
        "a segment for a TIME_WAIT"),
    KernelFunction(FN_SYS_BIND, "__sys_bind",
        "net/socket.c", "sock.syscall:sys_bind",
        (),
        "fd, address, port",
        "bind(2)",
        formers=(Former("4.17", "sys_bind", 'commit "net: socket: add __sys_bind() helper"'),)),
    KernelFunction(FN_INET_BIND, "inet_bind",
        "net/ipv4/af_inet.c", "sock.af_inet:inet_bind",
        (FN_SYS_BIND,),
        "address, port, 1 = IP_BIND_ADDRESS_NO_PORT",
        "address checks, then the port"),
    KernelFunction(FN_INET_CSK_GET_PORT, "inet_csk_get_port",
        "net/ipv4/inet_connection_sock.c", "inet.connection_sock:inet_csk_get_port",
        (FN_INET_BIND, FN_INET_CSK_LISTEN_START),
        "port asked (0: any), port | -errno",
        "a port taken by bind() is shared with nobody unless SO_REUSEADDR or SO_REUSEPORT say so"),
    KernelFunction(FN_INET_CSK_LISTEN_START, "inet_csk_listen_start",
        "net/ipv4/inet_connection_sock.c", "tcp.listen:inet_csk_listen_start",
        (),
        "port, backlog",
        "listen(2)"),
    KernelFunction(FN_INET_CSK_ACCEPT, "inet_csk_accept",
        "net/ipv4/inet_connection_sock.c", "tcp.listen:inet_csk_accept",
        (),
        "child sk | -errno",
        "accept(2)"),
)
# fmt: on

BY_NUMBER: dict[int, KernelFunction] = {entry.fn: entry for entry in FUNCTIONS}


def depth(fn: int) -> int:
    """How deep the function is in the tour of the path: 0 for an entry point, else one below its first caller."""
    level = 0
    while BY_NUMBER[fn].callers:
        fn = BY_NUMBER[fn].callers[0]
        level += 1
    return level


def enter(stack: list[int], fn: int) -> None:
    """Put fn on the stack of functions under way, on top of the nearest of its callers.

    An entry point starts anew.  A function whose caller does not report counts as called by the last one that did.
    """
    callers = BY_NUMBER[fn].callers if fn in BY_NUMBER else ()
    under_way = [i for i, caller in enumerate(stack) if caller in callers]
    if under_way:
        del stack[under_way[-1] + 1 :]
    elif not callers:
        stack.clear()
    stack.append(fn)


ERRNOS: dict[int, tuple[tuple[str, str], ...]] = {
    FN_SYS_CONNECT: (
        ("EFAULT", "the address cannot be read"),
        ("EINVAL", "an address length below 0 or above 128"),
    ),
    FN_SOCKFD_LOOKUP: (
        ("EBADF", "no such descriptor, or one opened with O_PATH"),
        ("ENOTSOCK", "a descriptor, but not of a socket"),
    ),
    FN_INET_STREAM_CONNECT: (
        ("EINVAL", "an address too short to hold its family"),
        ("EINPROGRESS", "O_NONBLOCK: the attempt has begun"),
        ("EALREADY", "O_NONBLOCK: it goes on"),
        ("EISCONN", "connected already, or listening"),
        ("ECONNABORTED", "the attempt had failed, and SO_ERROR has already told why"),
    ),
    FN_TCP_V4_CONNECT: (
        ("EINVAL", "fewer than the 16 bytes of a sockaddr_in"),
        ("EAFNOSUPPORT", "another family than AF_INET"),
        ("ENETUNREACH", "a multicast or broadcast address"),
    ),
    FN_IP_ROUTE_CONNECT: (
        ("ENETUNREACH", "no route, its device is down, or the source address is gone"),
        ("EHOSTUNREACH", "an `unreachable` route"),
        ("EACCES", "a `prohibit` route"),
        ("EINVAL", "a `blackhole` route, or a loopback source to another host"),
    ),
    FN__INET_HASH_CONNECT: (
        ("EADDRNOTAVAIL", "no port of the range is left for this destination"),
        ("ENOMEM", "no memory for a bind bucket"),
    ),
    FN__INET_CHECK_ESTABLISHED: (("EADDRNOTAVAIL", "bind() chose the port, and the four-tuple exists"),),
    FN_TCP_CONNECT: (("ENOBUFS", "no memory for the SYN"),),
    FN_INET_WAIT_FOR_CONNECT: (
        ("EINPROGRESS", "SO_SNDTIMEO is over; the attempt goes on"),
        ("EINTR", "a signal without SA_RESTART; the attempt goes on"),
    ),
    FN_TCP_WRITE_ERR: (("ETIMEDOUT", "every retry was used, or the time they stand for is over"),),
    FN_TCP_RESET: (
        ("ECONNREFUSED", "the answer to our SYN"),
        ("ECONNRESET", "later"),
    ),
    FN_TCP_V4_ERR: (
        ("ECONNREFUSED", "port unreachable"),
        ("EHOSTUNREACH", "host unreachable or filtered, or time exceeded"),
        ("ENETUNREACH", "net unreachable"),
        ("EPROTO", "parameter problem"),
    ),
    FN_INET_BIND: (
        ("EADDRNOTAVAIL", "not an address of this host"),
        ("EACCES", "a port below net.ipv4.ip_unprivileged_port_start"),
        ("EINVAL", "bound already"),
    ),
    FN_INET_CSK_GET_PORT: (("EADDRINUSE", "the port, or every port of the range, is taken"),),
}
"""What can fail in a function of the path, and with which errno (catalogue ERR, SRC, PORT, ICMP)."""

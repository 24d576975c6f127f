"""One line per packet, in tcpdump's words (absolute sequence numbers, as `tcpdump -n -S`).

What does not live here: names of hosts and services, colours, times.
"""

from __future__ import annotations

from collections.abc import Callable

from fourtuple.wire import icmp, tcp
from fourtuple.wire.build import IcmpPacket, IpPacket, TcpPacket, parse_packet

_FLAGS = (
    (tcp.FIN, "F"),
    (tcp.SYN, "S"),
    (tcp.RST, "R"),
    (tcp.PSH, "P"),
    (tcp.ACK, "."),
    (tcp.URG, "U"),
    (tcp.ECE, "E"),
    (tcp.CWR, "W"),
    (tcp.AE, "e"),
)

# {dst} is the destination of the quoted packet.
_UNREACHABLE = {
    icmp.ICMP_NET_UNREACH: "net {dst} unreachable",
    icmp.ICMP_HOST_UNREACH: "host {dst} unreachable",
    icmp.ICMP_SR_FAILED: "{dst} unreachable - source route failed",
    icmp.ICMP_NET_UNKNOWN: "net {dst} unreachable - unknown",
    icmp.ICMP_HOST_UNKNOWN: "host {dst} unreachable - unknown",
    icmp.ICMP_HOST_ISOLATED: "{dst} unreachable - source host isolated",
    icmp.ICMP_NET_ANO: "net {dst} unreachable - admin prohibited",
    icmp.ICMP_HOST_ANO: "host {dst} unreachable - admin prohibited",
    icmp.ICMP_NET_UNR_TOS: "net {dst} unreachable - tos prohibited",
    icmp.ICMP_HOST_UNR_TOS: "host {dst} unreachable - tos prohibited",
    icmp.ICMP_PKT_FILTERED: "host {dst} unreachable - admin prohibited filter",
    icmp.ICMP_PREC_VIOLATION: "host {dst} unreachable - host precedence violation",
    icmp.ICMP_PREC_CUTOFF: "host {dst} unreachable - precedence cutoff",
}


def format_packet(packet: bytes | bytearray | memoryview) -> str:
    """One line for any bytes; a packet that cannot be read says why."""
    try:
        view = parse_packet(packet)
    except ValueError as reason:
        return f"IP [{reason}], length {len(packet)}"
    if isinstance(view, TcpPacket):
        return _tcp_line(view)
    ends = f"IP {address_text(view.src)} > {address_text(view.dst)}: "
    if isinstance(view, IcmpPacket):
        return f"{ends}ICMP {icmp_text(view)}, length {8 + len(view.payload)}"
    return ends + _other_text(view)


def flags_text(bits: int) -> str:
    """tcpdump's letters: "S", "S.", "P.", "R"; "none" when no flag is set."""
    return "".join(letter for bit, letter in _FLAGS if bits & bit) or "none"


_FLAG_WORDS = {"S": "SYN", "S.": "SYN-ACK", ".": "ACK", "P.": "PSH-ACK", "F.": "FIN-ACK", "R": "RST", "R.": "RST-ACK"}


def flag_words(bits: int) -> str:
    """'SYN', 'SYN-ACK', 'ACK', ...; tcpdump's letters for the rest."""
    letters = flags_text(bits)
    return _FLAG_WORDS.get(letters, letters)


def address_text(address: int) -> str:
    """Dotted text of a host-order int."""
    return ".".join(str(octet) for octet in address.to_bytes(4, "big"))


def _tcp_line(p: TcpPacket) -> str:
    parts = [f"Flags [{flags_text(p.flags)}]"]
    if not p.checksum_ok:
        parts.append("bad cksum")
    if p.payload:
        parts.append(f"seq {p.seq}:{(p.seq + len(p.payload)) % 2**32}")
    elif p.flags & (tcp.SYN | tcp.FIN | tcp.RST):
        parts.append(f"seq {p.seq}")
    if p.flags & tcp.ACK:
        parts.append(f"ack {p.ack}")
    parts.append(f"win {p.window}")
    if p.flags & tcp.URG:
        parts.append(f"urg {p.urg}")
    if p.options:
        parts.append(f"options [{','.join(option_text(kind, body) for kind, body in p.options)}]")
    parts.append(f"length {len(p.payload)}")
    return f"IP {address_text(p.src)}.{p.sport} > {address_text(p.dst)}.{p.dport}: {', '.join(parts)}"


def option_text(kind: int, body: bytes) -> str:
    """One option: "mss 1460", "nop", "sack 1 {5:9}"; unknown ones and wrong sizes in hex."""
    words = _OPTION_WORDS.get(kind)
    if words is not None:
        sizes, text = words
        if len(body) in sizes:
            return text(body)
    return f"unknown-{kind}" + (f" 0x{body.hex()}" if body else "")


def _number(body: bytes) -> int:
    return int.from_bytes(body, "big")


def _sack_text(body: bytes) -> str:
    edges = [_number(body[i : i + 4]) for i in range(0, len(body), 4)]
    blocks = "".join(f"{{{start}:{end}}}" for start, end in zip(edges[::2], edges[1::2], strict=True))
    return f"sack {len(body) // 8} {blocks}"


def _cookie_text(body: bytes) -> str:
    return f"tfo cookie {body.hex()}" if body else "tfo cookiereq"


def _experiment_text(body: bytes) -> str:
    if _number(body[:2]) == tcp.FASTOPEN_MAGIC:
        return "exp-" + _cookie_text(body[2:])
    return f"exp-{body.hex()}"


_OPTION_WORDS: dict[int, tuple[range, Callable[[bytes], str]]] = {
    tcp.OPT_EOL: (range(1), lambda body: "eol"),
    tcp.OPT_NOP: (range(1), lambda body: "nop"),
    tcp.OPT_MSS: (range(2, 3), lambda body: f"mss {_number(body)}"),
    tcp.OPT_WSCALE: (range(1, 2), lambda body: f"wscale {_number(body)}"),
    tcp.OPT_SACK_PERM: (range(1), lambda body: "sackOK"),
    tcp.OPT_SACK: (range(8, 39, 8), _sack_text),
    tcp.OPT_TIMESTAMP: (range(8, 9), lambda body: f"TS val {_number(body[:4])} ecr {_number(body[4:])}"),
    tcp.OPT_MD5: (range(16, 17), lambda body: f"md5 {body.hex()}"),
    tcp.OPT_FASTOPEN: (range(39), _cookie_text),
    tcp.OPT_EXPERIMENT: (range(2, 39), _experiment_text),
}


def icmp_text(p: IcmpPacket) -> str:
    """tcpdump's words for the message alone: "host 10.0.0.7 unreachable"."""
    if p.type in (icmp.ICMP_ECHO, icmp.ICMP_ECHOREPLY):
        word = "request" if p.type == icmp.ICMP_ECHO else "reply"
        return f"echo {word}, id {p.info >> 16}, seq {p.info & 0xFFFF}"
    if p.type == icmp.ICMP_DEST_UNREACH:
        return _unreachable_text(p)
    if p.type == icmp.ICMP_TIME_EXCEEDED:
        return "ip reassembly time exceeded" if p.code == icmp.ICMP_EXC_FRAGTIME else "time exceeded in-transit"
    if p.type == icmp.ICMP_REDIRECT:
        return f"redirect {_quoted_destination(p.payload)} to host {address_text(p.info)}"
    if p.type == icmp.ICMP_SOURCE_QUENCH:
        return "source quench"
    if p.type == icmp.ICMP_PARAMETERPROB:
        return f"parameter problem - octet {p.info >> 24}"
    return f"type-#{p.type}, code {p.code}"


def _unreachable_text(p: IcmpPacket) -> str:
    dst = _quoted_destination(p.payload)
    if p.code == icmp.ICMP_PROT_UNREACH:
        return f"{dst} protocol {p.payload[9] if len(p.payload) > 9 else '?'} unreachable"
    if p.code == icmp.ICMP_PORT_UNREACH:
        return f"{dst} {_quoted_port(p.payload)} unreachable"
    if p.code == icmp.ICMP_FRAG_NEEDED:
        return f"{dst} unreachable - need to frag (mtu {p.info & 0xFFFF})"
    return _UNREACHABLE.get(p.code, "{dst} unreachable - #" + str(p.code)).format(dst=dst)


def _quoted_destination(quoted: bytes) -> str:
    return address_text(_number(quoted[16:20])) if len(quoted) >= 20 else "?"


def _quoted_port(quoted: bytes) -> str:
    start = (quoted[0] & 0x0F) * 4 if quoted else 0
    if len(quoted) < start + 4 or start < 20:
        return "port ?"
    protocol = {6: "tcp", 17: "udp"}.get(quoted[9], f"proto {quoted[9]}")
    return f"{protocol} port {_number(quoted[start + 2 : start + 4])}"


def _other_text(p: IpPacket) -> str:
    if p.frag_off:
        return f"ip-proto-{p.proto}, fragment at {p.frag_off}, length {len(p.payload)}"
    return f"ip-proto-{p.proto}, length {len(p.payload)}"

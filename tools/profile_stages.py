"""Where the time of a handshake goes: perf samples of a dial on a TUN, added up by stage (docs/performance.md).

    python tools/profile_stages.py [CONNECTIONS]      root, perf(1); a quiet machine

A sample belongs to the first stage, in the order below, one of whose functions is on its stack.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

# Stage -> functions, innermost first: a symbol of compiled Python ends in the function's name.
STAGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("kernel: SYN in, SYN-ACK out", "k", ("tcp_conn_request",)),
    ("kernel: ACK in, child socket, accept queue", "k", ("tcp_check_req", "tcp_child_process")),
    ("kernel: read() of a SYN-ACK", "k", ("ksys_read", "vfs_read", "tun_chr_read_iter")),
    ("kernel: the rest of write(): TUN, IP, look-up", "k", ("ksys_write", "vfs_write", "tun_chr_write_iter")),
    ("kernel: page faults", "k", ("exc_page_fault", "asm_exc_page_fault")),
    ("kernel: everything else", "k", ("entry_SYSCALL_64", "asm_sysvec_apic_timer_interrupt", "ret_from_fork")),
    ("port: inet_hash_connect, ehash, bucket", "u", ("inet_hash_connect",)),
    ("route and source address", "u", ("sk_route", "net_route", "ip_route_connect")),
    ("sequence number, timestamp offset", "u", ("_choose_sequence",)),
    ("SYN: options, headers, checksums", "u", ("tcp_send_syn",)),
    ("retransmission timer: arm", "u", ("tcp_reset_xmit_timer",)),
    ("tcp_connect_init, windows, the rest of connect()", "u", ("tcp_v4_connect",)),
    ("a row: tcp_init_sock", "u", ("tcp_init_sock",)),
    ("ACK: options, headers, checksums", "u", ("tcp_send_ack",)),
    ("SYN-ACK: state, round trip, timer off", "u", ("tcp_rcv_synsent_state_process",)),
    ("look-up of the socket", "u", ("inet_lookup_established",)),
    ("TCP header: parse, verify the checksum", "u", ("parse_tcp", "verify_tcp")),
    ("IP header: parse, verify, is it local", "u", ("ip_rcv",)),
    ("close()", "u", ("tcp_close",)),
    ("events, counts, histograms", "u", ("dial_take", "dial_begin")),
    ("the loops round read() and write()", "u", ("read_packets", "write_packets")),
    ("Python: one round of the loop", "u", ("_PyEval_EvalFrameDefault", "PyEval_EvalCode")),
)
_START = "start-up and the rest"
_SYMBOL = re.compile(r"^\s*[0-9a-f]+ (\S+)")

_DIAL = """
import sys, time, resource
from fourtuple.dial.plan import DialPlan, Target, expand
from fourtuple.dial.stack import Stack, routes_of
from fourtuple.dial.wiring import Wiring, setup_of
from fourtuple.shell.wires import open_wire
n = int(sys.argv[1])
plan = DialPlan(n, tuple(Target(a, 8080) for a in expand("10.65.0.0/26")), wire="tun")
with open_wire("tun", setup_of(plan, Wiring((("10.65.0.0/26", 8080),)))) as wire:
    stack = Stack(wire, time_connects=True)
    d = stack.dialer
    d.set_routes(routes_of([(t.address, t.port) for t in plan.targets], ()))
    before = time.process_time()
    while d.established < n:
        stack.round(max(0, min(128 - d.in_flight, n - d.begun)))
    print(n, time.process_time() - before, flush=True)
    import os
    os._exit(0)
"""


def stacks(data: Path) -> list[list[str]]:
    """The functions of each sample, innermost first."""
    command = ["perf", "script", "-i", str(data), "-F", "comm,ip,sym"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = []
    for block in text.split("\n\n"):
        names = [match[1].split("+")[0] for line in block.splitlines() if (match := _SYMBOL.match(line))]
        if names:
            found.append(names)
    return found


def stage_of(names: list[str]) -> str:
    """The stage of one sample."""
    if any(name.startswith(("PyImport", "import_")) for name in names):
        return _START
    for title, _, functions in STAGES:
        for name in names:
            if any(re.search(rf"(^|_|\d){function}$", name) for function in functions):
                return title
    return _START


def main() -> int:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "--call-graph", "dwarf,8192", "-o", str(data)]
        done = subprocess.run(
            [*record, sys.executable, "-c", _DIAL, str(n)], check=True, capture_output=True, text=True
        ).stdout.split()
        cpu_ns = float(done[1]) * 1e9 / n
        counts = Counter(stage_of(names) for names in stacks(data))
    outside = counts.pop(_START, 0)
    total = sum(counts.values())
    say = sys.stdout.write
    say(f"{n:,} handshakes, {cpu_ns:,.0f} ns CPU each under perf; {total} samples ({outside} of the start)\n\n")
    for title, _, _ in STAGES:
        say(f"{title:52} {counts[title] * cpu_ns / total:8,.0f} ns  {counts[title] / total:6.1%}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

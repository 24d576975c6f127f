"""Runs from which the example lines of docs/connect.md are taken: on the simulated wire, with a fixed seed.

Each run is a connect() with its trace; the same seed gives the same text on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from fourtuple.address import parse_ipv4
from fourtuple.cli.attempt import Attempt, Request, prefill, run_attempt
from fourtuple.cli.steps import Names, Step, describe
from fourtuple.cli.story import names_of
from fourtuple.phy.fault import parse_loss
from fourtuple.shell.wires import OUR_ADDRESS, PEER_ADDRESS, Setup, Wire, open_sim
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.trace import Tracer, attach, records
from fourtuple.wire.build import icmp_packet

SEED = 7
PORT = 8080
RANGE = "net.ipv4.ip_local_port_range"


def _run(setup: Setup, request: Request | None = None) -> list[Step]:
    with open_sim(replace(setup, seed=SEED)) as wire:
        return steps_of(run_attempt(wire, request or Request(PEER_ADDRESS, PORT)))


def steps_of(attempt: Attempt) -> list[Step]:
    """Every function, in order."""
    return describe(attempt.records, names_of(attempt), virtual=True, verbose=True)


def plain() -> list[Step]:
    """Nothing goes wrong."""
    return _run(Setup())


def lost() -> list[Step]:
    """The first SYN is lost."""
    return _run(Setup(loss=parse_loss("syn:1")))


def silent() -> list[Step]:
    """Nobody answers; two retries."""
    retries = {"net.ipv4.tcp_syn_retries": "2", "net.ipv4.tcp_syn_linear_timeouts": "0"}
    return _run(Setup(loss=parse_loss("syn:1-9"), sysctls=retries))


def refused() -> list[Step]:
    """Nobody listens there."""
    return _run(Setup(servers=()))


def unreachable() -> list[Step]:
    """A router answers the SYN: host unreachable."""
    with open_sim(Setup(seed=SEED)) as wire:
        host, tracer = wire.host, Tracer()
        fd = host.sys_socket()
        attach(tracer, host.net)
        wait = host.sys_connect(fd, pack_sockaddr_in(parse_ipv4("192.0.2.1"), PORT))
        (syn,) = host.take_packets()
        answer = icmp_packet(PEER_ADDRESS, OUR_ADDRESS, 3, 1, payload=syn.packet[:28])
        host.receive_packet(answer, wire.runner.now_us() + 10_000)
        wait.poll()
        return describe(records(tracer), Names({2: "ft0"}), virtual=True, verbose=True)


def full() -> list[Step]:
    """Every port of a small range has this four-tuple."""
    with open_sim(Setup(seed=SEED, sysctls={RANGE: "40000 40003"})) as wire:
        prefill(wire.host, "", PEER_ADDRESS, PORT, 4)
        return steps_of(run_attempt(wire, Request(PEER_ADDRESS, PORT)))


def bound() -> list[Step]:
    """bind() to a port, then connect()."""
    return _run(Setup(), Request(PEER_ADDRESS, PORT, OUR_ADDRESS, 40000))


def _leave_time_wait(wire: Wire) -> None:
    fd = wire.runner.socket()
    wire.runner.connect(fd, (PEER_ADDRESS, PORT))
    wire.runner.close(fd)
    wire.runner.run_until(lambda: False, wire.runner.now_us() + 2_000_000)


def reused() -> list[Step]:
    """The only port of the range is in TIME_WAIT, and tcp_tw_reuse is 1."""
    with open_sim(Setup(seed=SEED, sysctls={RANGE: "40000 40000", "net.ipv4.tcp_tw_reuse": "1"})) as wire:
        _leave_time_wait(wire)
        return steps_of(run_attempt(wire, Request(PEER_ADDRESS, PORT)))


def crowded() -> list[Step]:
    """A range of which nearly every port is passed over, each for a reason of its own."""
    sysctls = {RANGE: "40000 40000", "net.ipv4.ip_local_reserved_ports": "40004"}
    servers = ((PEER_ADDRESS, PORT), (PEER_ADDRESS, PORT + 1))
    with open_sim(Setup(servers, seed=SEED, sysctls=sysctls)) as wire:
        _leave_time_wait(wire)
        for low, port in ((40008, PORT), (40002, PORT + 1)):
            wire.host.set_sysctl(RANGE, f"{low} {low}")
            run_attempt(wire, Request(PEER_ADDRESS, port), hold=True)
        wire.runner.bind(wire.runner.socket(), (OUR_ADDRESS, 40006))
        wire.host.set_sysctl(RANGE, "40000 40009")
        return steps_of(run_attempt(wire, Request(PEER_ADDRESS, PORT)))


RUNS: dict[str, Callable[[], list[Step]]] = {
    run.__name__: run for run in (plain, lost, silent, refused, unreachable, full, bound, reused, crowded)
}


def all_runs() -> dict[str, list[Step]]:
    """Every run, by name."""
    return {name: run() for name, run in RUNS.items()}


def find(steps: list[Step], fn: int) -> Iterator[Step]:
    """The steps of one function."""
    return (step for step in steps if step.fn == fn)

"""`python -m benchmarks`: measure, print tables; `--json` for machines, `--quick` to see that everything runs."""

from __future__ import annotations

import argparse
import sys

from benchmarks import connections, destinations, doctor, handshakes, kernel_search, live_sockets, loops, ports
from benchmarks.report import Table, as_json, machine

SECTIONS = {
    "ports": ports.run,
    "kernel-search": kernel_search.run,
    "destinations": destinations.run,
    "connections": connections.run,
    "handshakes": handshakes.run,
    "live-sockets": live_sockets.run,
    "doctor": doctor.run,
}


def measure(section: str, quick: bool) -> list[Table]:
    """The tables of one section; none where this machine does not let it be measured, which is said."""
    try:
        return SECTIONS[section](quick)
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        print(f"{section}: not measured: {subject}{error.strerror or error}", file=sys.stderr)
        return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What fourtuple costs, measured.")
    parser.add_argument("section", nargs="*", help=f"which: {', '.join(SECTIONS)} (all of them)")
    parser.add_argument("--quick", action="store_true", help="few calls, small tables: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    args = parser.parse_args()
    unknown = set(args.section) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section: {', '.join(sorted(unknown))}")
    if not loops.__file__.endswith(".so"):
        parser.error("the loops are not compiled: run `make setup`")
    tables: list[Table] = []
    if not args.json:
        print(", ".join(f"{key}: {value}" for key, value in machine().items()), end="\n\n")
        print("Medians of paired runs: all that is compared is run in turn.\n")
    for name in args.section or SECTIONS:
        for table in measure(name, args.quick):
            tables.append(table)
            if not args.json:
                print(table.text(), end="\n\n", flush=True)
    if args.json:
        print(as_json(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main())

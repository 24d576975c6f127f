"""`python -m benchmarks`: measure, print tables and a summary of the targets.

--json for machines, --quick to see that everything runs, --save to keep the figures in benchmarks/results/;
`floor` alone: the few ratios that CI holds to (floor.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from benchmarks import (
    connections,
    destinations,
    doctor,
    endpoints,
    floor,
    handshakes,
    kernel_search,
    live_sockets,
    loops,
    million,
    ports,
    processes,
    simulation,
)
from benchmarks.report import Table, as_json, goals_table, machine, slug

SECTIONS = {
    "ports": ports.run,
    "kernel-search": kernel_search.run,
    "destinations": destinations.run,
    "connections": connections.run,
    "simulation": simulation.run,
    "handshakes": handshakes.run,
    "processes": processes.run,
    "endpoints": endpoints.run,
    "million": million.run,
    "live-sockets": live_sockets.run,
    "doctor": doctor.run,
}
RESULTS = Path(__file__).resolve().parent / "results"


def measure(section: str, quick: bool, broken: list[str]) -> list[Table]:
    """The tables of one section; none where this machine does not let it be measured, which is said.

    What went wrong without the machine being the reason is `broken`; the other sections go on.
    """
    try:
        return SECTIONS[section](quick)
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        print(f"{section}: not measured: {subject}{error.strerror or error}", file=sys.stderr)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{section}: broken: {error}", file=sys.stderr)
        broken.append(section)
    return []


def summary(tables: list[Table], load_at: dict[str, str]) -> Table:
    """Every target that was measured."""
    goals = [goal for table in tables for goal in table.goals]
    short = sum(goal.verdict != "within" for goal in goals)
    table = goals_table(goals, f"Summary: {len(goals)} targets, {short} short")
    table.name = "summary"
    loads = ", ".join(f"{name} {load}" for name, load in load_at.items())
    table.notes = (
        "peer: the same measured for whom we are compared with; ratio: ours better by so many times.",
        *textwrap.wrap(f"load average of the machine, ours included, after each section: {loads}", 100),
    )
    return table


def save(tables: list[Table], before: dict[str, str]) -> Path:
    """In RESULTS, named by date and machine."""
    RESULTS.mkdir(exist_ok=True)
    name = f"{time.strftime('%Y-%m-%d', time.gmtime())}-{slug(before['cpu'])}.json"
    (RESULTS / name).write_text(as_json(tables, before) + "\n")
    return RESULTS / name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What fourtuple costs, measured.")
    parser.add_argument("section", nargs="*", help=f"which: {', '.join(SECTIONS)} (all of them); or floor, alone")
    parser.add_argument("--quick", action="store_true", help="few calls, small tables: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--save", action="store_true", help="keep the JSON in benchmarks/results/<date>-<machine>.json")
    args = parser.parse_args()
    if not loops.__file__.endswith(".so"):
        parser.error("the loops are not compiled: run `make setup`")
    if args.section == ["floor"]:
        return floor.run()
    unknown = set(args.section) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section: {', '.join(sorted(unknown))}")
    before = machine()
    tables: list[Table] = []
    broken: list[str] = []
    load_at: dict[str, str] = {}
    if not args.json:
        print(", ".join(f"{key}: {value}" for key, value in before.items()), end="\n\n")
        print("Medians of paired runs: all that is compared is run in turn.\n", flush=True)
    for name in args.section or SECTIONS:
        for table in measure(name, args.quick, broken):
            tables.append(table)
            if not args.json:
                print(table.text(), end="\n\n", flush=True)
        load_at[name] = machine()["load"]
    before["load by section"] = ", ".join(f"{name} {load}" for name, load in load_at.items())
    if not args.json and any(table.goals for table in tables):
        print(summary(tables, load_at).text(), end="\n\n", flush=True)
    if args.json:
        print(as_json(tables, before))
    if args.save:
        print(f"saved in {save(tables, before)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Write docs/profiles.md from the facts in fourtuple/kernel_profile.py; with --check only say whether it is stale.

Usage: PYTHONPATH=src python tools/make_profiles.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from fourtuple.kernel_profile import OPTION_FACTS, PORT_FACTS, SYN_FACTS, SYSCTL_FACTS, VERSIONS, Change, Fact

PAGE = Path(__file__).resolve().parent.parent / "docs" / "profiles.md"
COMMIT_URL = "https://git.kernel.org/torvalds/c/"

INTRODUCTION = """# Kernel profiles

`Host(profile="3.10")` and `fourtuple connect --profile 3.10` imitate another Linux than 6.18, the default. This page
says what then differs: one row per fact, one column per profile. A cell names its source where the value changes: a
commit and the first version that has it, or a file and function as it stands in that version. An empty cell is the one
to its left; "–" means that the kernel does not have it.

Each cell has a test (`tests/test_profiles.py`) that drives the engine in that profile and looks at what it does. The
page is made from `src/fourtuple/kernel_profile.py` by `tools/make_profiles.py`.

A version stands for its first release: what a distribution has added is not in it (RHEL 6's 2.6.32 has the 1 s timeout
of 3.1, for one). Only 6.18 is 6.18.44, against which the whole engine was measured.
"""

NOTES = """## Worth knowing

- 2.6.32 means `tcp_syn_retries = 5` to last three minutes and gives up after 21 s: the time that the retries stand for
  is reckoned from the shortest timeout of a connection, 0.2 s, not from the 3 s of a SYN. 4d22f7d372f5 (2.6.36) mends
  it.
- With 6.3 to 6.7 IP_LOCAL_PORT_RANGE narrows the range but keeps the parity passes, and so the cost of a range that is
  more than half full; only since 6.8 it is the way round it.

## Not told apart

- Whether the keyed hash is half MD4 (2.6.32), MD5 (3.1) or SipHash (4.11): nobody can tell without the key.
- Timestamps count ticks of CONFIG_HZ before 4.13 (9a568de4818d). These profiles have 1,000 ticks a second, as RHEL's
  kernels of that time, so a tick is a millisecond in all of them.
- In the old kernels the range, the reserved ports and most sysctls are those of the machine, not of a network
  namespace; here every Host has its own.
- Sysctls that are not listed have the defaults and bounds of 6.18.
- Loss recovery, congestion control, the window after the handshake, answers to ICMP: as in 6.18 throughout.
"""

SECTIONS = (
    ("Ports", PORT_FACTS),
    ("The SYN and what surrounds it", SYN_FACTS),
    ("Sysctls that came later", SYSCTL_FACTS),
    ("Socket options that came later", OPTION_FACTS),
)


def source_text(source: str) -> str:
    """Links to the commits, or the file as it is."""
    return "; ".join(map(one_source, source.split("; ")))


def one_source(source: str) -> str:
    """A link to one commit, or one file."""
    commit, comma, version = source.partition(", ")
    if comma and len(commit) == 12 and set(commit) <= set("0123456789abcdef"):
        return f"[{commit}]({COMMIT_URL}{commit}), {version}"
    return f"`{commit}`, {version}" if comma else source


def cell(change: Change, version: str) -> str:
    """Empty where the value to the left still holds."""
    if change.version != version:
        return ""
    return f"{change.text}<br>{source_text(change.source)}" if change.source else change.text


def row(fact: Fact) -> str:
    """One line of a table."""
    title = f"`{fact.title}`" if fact in SYSCTL_FACTS or fact in OPTION_FACTS else fact.title
    return "| " + " | ".join([title, *(cell(fact.at(version), version) for version in VERSIONS)]) + " |"


def page() -> str:
    """The whole page."""
    head = "| | " + " | ".join(VERSIONS) + " |\n|" + "---|" * (len(VERSIONS) + 1)
    tables = [f"## {title}\n\n{head}\n" + "\n".join(map(row, facts)) + "\n" for title, facts in SECTIONS]
    return "\n".join([INTRODUCTION, *tables, NOTES])


def main() -> int:
    """0, or 1 if --check finds the page stale."""
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page()
        if stale:
            sys.stderr.write(f"{PAGE.name} is stale: run tools/make_profiles.py\n")
        return int(stale)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

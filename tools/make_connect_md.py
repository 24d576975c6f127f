"""Writes docs/connect.md, the tour of the path of one connect(), from fourtuple.kernel_map.

    python tools/make_connect_md.py            writes it
    python tools/make_connect_md.py --check    exit 1 if the page is not what would be written

Lives here: the layout of the page.  Does not live here: words (connect_tour.py), example runs (connect_examples.py).
"""

from __future__ import annotations

import io
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from connect_examples import all_runs, find
from connect_tour import ROOMS, TOURED, Room, Stop

from fourtuple.cli.render import render_steps
from fourtuple.cli.steps import Step
from fourtuple.cli.terminal import Terminal
from fourtuple.kernel_map import BY_NUMBER, ERRNOS, FUNCTIONS, KernelFunction

PAGE = Path(__file__).resolve().parents[1] / "docs" / "connect.md"
WIDTH = 110

HEAD = """\
<!-- Written by tools/make_connect_md.py from src/fourtuple/kernel_map.py: do not edit, run `make docs`. -->

# One connect(), room by room

What happens between `connect(fd, address, length)` and the first three packets, function by function: the kernel's
name and file, ours, what it decides, what its line in a trace looks like, and what can go wrong there. Names are those
of Linux 6.18; where older kernels had another one, it is given with the version that ended it and a source.

In each room, ours is where the kernel's is: `net/ipv4/inet_hashtables.c` is
[inet/hashtables.py](../src/fourtuple/inet/hashtables.py). Names such as ERR-05 are rows of the specification, a
catalogue of 246 behaviours of Linux 6.18; tests and comments use the same names.

The example lines come from runs on the simulated wire, which needs no privilege and gives the same text everywhere.
This is the first of them, and its whole trace:

```
fourtuple connect 10.64.0.1:8080 --wire sim --seed 7 -v
```

"""

DIAGRAM = """
```mermaid
flowchart TD
    program(["connect(fd, address, length)"]) --> call
    call["1 · The system call<br>descriptor → file → socket → sock"] --> own
    own["2 · TCP's own connect<br>route, source address, SYN_SENT"] --> port
    port["3 · The port<br>bhash, ehash: is the four-tuple free?"] --> syn
    syn["4 · The SYN<br>sequence number, options, timer"] --> wire(("the wire"))
    wire -- SYN-ACK --> back["5 · The way back<br>ehash finds the sock"]
    back --> done(["ESTABLISHED: connect() = 0"])
    wire -- nothing --> timer["6 · Nobody answers<br>again, after 1, 1, 1, 1, 1, 2, 4 … s"]
    timer -- again --> wire
    timer --> late(["ETIMEDOUT"])
    wire -- "RST, ICMP" --> no["7 · Somebody says no"] --> refused(["ECONNREFUSED, EHOSTUNREACH …"])
    port -- no port left --> full(["EADDRNOTAVAIL"])
    bind["8 · bind() first"] -. takes a port .-> port
```
"""

REST = """
## Afterwards, and the other side

What a trace shows besides: the connection in use, its end, and the server's side of the handshake.

"""


def page() -> str:
    """The whole text."""
    runs = all_runs()
    parts = [HEAD, _code(runs["plain"]), DIAGRAM]
    for number, room in enumerate(ROOMS, 1):
        parts.append(_room(number, room, runs))
    parts += [REST, *(_line_of_rest(entry) for entry in FUNCTIONS if entry.fn not in TOURED)]
    return "".join(parts)


def _room(number: int, room: Room, runs: dict[str, list[Step]]) -> str:
    stops = (_stop(f"{number}.{i}", stop, runs) for i, stop in enumerate(room.stops, 1))
    return f"\n## {number} · {room.title}\n\n{_paragraph(room.about)}\n\nHere: {room.home}\n{''.join(stops)}"


def _stop(number: str, stop: Stop, runs: dict[str, list[Step]]) -> str:
    entry = BY_NUMBER[stop.fn]
    shown = []
    for run in stop.run.split():
        found = list(find(runs[run], stop.shown_by or stop.fn))
        if not found:
            raise SystemExit(f"{entry.name}: the run {run!r} of connect_examples.py has no line of it")
        shown += found[: stop.lines]
    lines = [f"\n### {number} {_title(entry)}\n", f"{_where(entry)}\n", f"{_paragraph(stop.decides)}\n"]
    lines.append(_code([replace(step, depth=0) for step in shown]).removesuffix("\n"))
    facts = [f"* **{name}**: {why}" for name, why in ERRNOS.get(stop.fn, ())]
    known = " · ".join(text for text in (stop.rows, stop.rfc) if text)
    facts += [f"* {known}"] if known else []
    return "\n".join([*lines, *(["", *facts] if facts else [])]) + "\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _title(entry: KernelFunction) -> str:
    return entry.name if entry.is_step else f"`{entry.name}`"


def _where(entry: KernelFunction) -> str:
    """Where the kernel has it and where we do, and what it was called before."""
    module, _, function = entry.ours.partition(":")
    path = f"{module.replace('.', '/')}.py"
    step = "a step inside " if entry.is_step else ""
    inlined = ", inlined by the compiler" if entry.inlined and not entry.is_step else ""
    line = f"{step}`{entry.kernel_file}`{inlined} → [{path}](../src/fourtuple/{path}), `{function}`"
    return line + "".join(f"\n\n{text}" for text in _formers(entry))


def _formers(entry: KernelFunction) -> list[str]:
    texts = []
    for former in reversed(entry.formers):
        place = f" in `{former.kernel_file}`" if former.kernel_file else ""
        texts.append(f"Before Linux {former.before}: `{former.name}`{place} ({former.source}).")
    return [_paragraph(" ".join(texts))] if texts else []


def _line_of_rest(entry: KernelFunction) -> str:
    module, _, function = entry.ours.partition(":")
    path = f"{module.replace('.', '/')}.py"
    before = "".join(f" Before Linux {f.before}: `{f.name}` ({f.source})." for f in reversed(entry.formers))
    return (
        f"* {_title(entry)} `{entry.kernel_file}` → [{path}](../src/fourtuple/{path}), `{function}`: "
        f"{entry.meaning}.{before}\n"
    )


def _code(steps: list[Step]) -> str:
    """Lines of a trace as a terminal shows them."""
    terminal = Terminal(io.StringIO(), color=False, boxes=True, ascii_only=False, width=WIDTH, is_tty=False)
    lines = (terminal.format(line) for line in render_steps(steps, terminal))
    return "```\n" + "\n".join(lines) + "\n```\n"


def main(arguments: list[str]) -> int:
    text = page()
    if "--check" in arguments:
        is_current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        if not is_current:
            sys.stderr.write(f"{PAGE.relative_to(PAGE.parents[1])} is stale: run `make docs`\n")
        return 0 if is_current else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The pages: one connect(), told by its path, its packets, its ports and its four-tuple."""

from __future__ import annotations

import errno
import os
from base64 import b64encode
from hashlib import sha256

from fourtuple import __version__
from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.explain import last_icmp
from fourtuple.cli.html.card import tuple_card
from fourtuple.cli.html.events import flags_of
from fourtuple.cli.html.ladder import ladder_card
from fourtuple.cli.html.markup import Html, join, tag
from fourtuple.cli.html.path import head_of, path_card, unbroken
from fourtuple.cli.html.schedule import schedule_card
from fourtuple.cli.html.snapshot import Snapshot
from fourtuple.cli.html.strip import strip_card
from fourtuple.cli.html.style import SCRIPT, STYLE
from fourtuple.cli.http import parse_answer, printable
from fourtuple.cli.steps import duration
from fourtuple.cli.story import names_of
from fourtuple.errors import errno_name
from fourtuple.wire.tcp import ACK, SYN

_ANSWER_LINES, _ANSWER_WIDTH = 12, 240


def document(title: str, *body: str) -> str:
    """A page that may load nothing and run nothing but what is in it."""
    policy = (
        f"default-src 'none'; style-src '{_hash(STYLE)}'; script-src '{_hash(SCRIPT)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    page = tag("html", "\n", head, "\n", tag("body", *body, Html(f"<script>{SCRIPT}</script>")), lang="en")
    return f"<!doctype html>\n{page}\n"


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def theme_button() -> Html:
    """The switch of the colour scheme; without a script it is not there, and the reader's own scheme holds."""
    return tag("button", "☾ dark", type="button", class_="theme", hidden=True, title="switch the colours")


def connect_page(attempt: Attempt, tables: Snapshot, seed: int, prefilled: int) -> str:
    """Everything about one `fourtuple connect`."""
    column = tag(
        "div",
        ladder_card(attempt, whole=bool(attempt.request.payload)),
        strip_card(attempt, tables),
        tuple_card(attempt, tables),
        _schedule(attempt),
        answer_card(attempt),
        class_="column",
    )
    title = f"{call_text(attempt)} → {outcome(attempt)}"
    return document(
        title,
        tag("header", theme_button(), _headline(attempt), _sub(attempt, seed, prefilled)),
        tag("main", path_card(attempt), column, class_="two"),
        footer(attempt, seed),
    )


def _schedule(attempt: Attempt) -> Html | None:
    """Whoever waited for the end wants to know why so long."""
    if attempt.error != errno.ETIMEDOUT or not attempt.segments:
        return None
    return schedule_card(names_of(attempt).profile, attempt.wire.setup.sysctls)


def call_text(attempt: Attempt) -> str:
    """'connect(3, 10.64.0.1:8080)'."""
    request = attempt.request
    wanted = km.FN_SYS_BIND if attempt.bind_code else km.FN_SYS_CONNECT
    fd = next((record.a for record in attempt.records if record.fn == wanted), 3)
    if attempt.bind_code:
        return f"bind({fd}, {request.source}:{request.source_port or 0})"
    return f"connect({fd}, {request.address}:{request.port})"


def outcome(attempt: Attempt) -> str:
    """'0 in 1.031 s', '−1 ECONNREFUSED after 12 µs'."""
    if not attempt.error:
        return f"0 in {duration(attempt.connect_us)}"
    return f"−1 {errno_name(attempt.error)}" + (f" after {duration(attempt.connect_us)}" if attempt.connect_us else "")


def remark(attempt: Attempt) -> str:
    """What was special about it, in a few words."""
    lost = [packet for packet in attempt.segments if packet.lost]
    syns = [packet for packet in attempt.segments if packet.outgoing and flags_of(packet) & (SYN | ACK) == SYN]
    if attempt.error and syns:
        return _failed_remark(attempt, len(syns))
    if lost and all(packet in syns for packet in lost):
        return "first SYN lost" if len(lost) == 1 and lost[0] is syns[0] else f"{head_of(len(lost), 'SYN')} lost"
    if lost:
        return f"{head_of(len(lost), 'packet')} lost"
    if attempt.looks:
        return _REMARKS.get(attempt.looks[-1].b, "")
    return "port chosen by bind()" if attempt.request.source_port is not None and not attempt.error else ""


def _failed_remark(attempt: Attempt, syns: int) -> str:
    if last_icmp(attempt):
        return "an ICMP message came back"
    answered = any(not packet.outgoing and not packet.lost for packet in attempt.segments)
    return "the server said no" if answered else f"{head_of(syns, 'SYN')}, no answer"


_REMARKS = {
    km.LOOK_JOINED: "port shared with another connection",
    km.LOOK_TW_REUSED: "a TIME_WAIT taken over",
    km.LOOK_ESTABLISHED: "no port is left",
    km.LOOK_BUCKET_BOUND: "no port is left",
    km.LOOK_RESERVED: "no port is left",
    km.LOOK_TIME_WAIT: "no port is left",
}


def _headline(attempt: Attempt) -> Html:
    more = remark(attempt)
    return tag(
        "h1",
        call_text(attempt),
        " → ",
        tag("span", outcome(attempt), class_="bad" if attempt.error else "good"),
        join(" ", tag("span", f"({more})", class_="remark")) if more else None,
    )


def _sub(attempt: Attempt, seed: int, prefilled: int) -> Html:
    request = attempt.request
    ours: list[str] = []
    if attempt.source_port:
        ours = [f"{attempt.source}:", tag("span", str(attempt.source_port), class_="port")]
        ours.append(f" → {request.address}:{request.port} · ")
    return tag("p", *ours, " · ".join(_facts(attempt, seed, prefilled)), class_="sub")


def _facts(attempt: Attempt, seed: int, prefilled: int) -> list[str]:
    sysctl = attempt.wire.host.sysctls
    looked = len(attempt.looks)
    facts = [f"wire: {attempt.wire.where}"]
    if looked:
        facts.append(f"{unbroken(looked)} of {unbroken(sysctl.port_high - sysctl.port_low + 1)} ports looked at")
    facts.append(head_of(len(attempt.segments), "segment"))
    if prefilled:
        facts.append(f"{head_of(prefilled, 'four-tuple')} held before")
    if attempt.untraced_us:
        facts.append(f"unwatched the same call takes {duration(attempt.untraced_us)}")
    return [*facts, f"Linux {names_of(attempt).profile}", f"seed {seed}"]


def answer_card(attempt: Attempt) -> Html | None:
    """What the server said, as harmless text."""
    if attempt.error or not attempt.request.payload:
        return None
    says: list[str | None] = []
    if attempt.answer_code:
        says.append(tag("p", f"{errno_name(attempt.answer_code)}: {os.strerror(attempt.answer_code)}", class_="bad"))
    elif attempt.request.wants_answer:
        status, body = parse_answer(attempt.answer)
        size = f"{head_of(len(attempt.answer), 'byte')} in {duration(attempt.answer_us)}"
        more = ", the rest was not read" if attempt.answer_is_cut else ""
        first = printable(status.encode(), 1, _ANSWER_WIDTH) or ["no HTTP"]
        says.append(tag("p", tag("strong", *first), f" · {size}{more}"))
        says.append(tag("pre", "\n".join(printable(body, _ANSWER_LINES, _ANSWER_WIDTH))))
    else:
        says.append(tag("p", f"{head_of(len(attempt.request.payload), 'byte')} sent", class_="say"))
    return tag("section", tag("h2", "Then"), *says, class_="card answer")


def footer(attempt: Attempt, seed: int) -> Html:
    """Where the page comes from."""
    virtual = attempt.wire.runner.is_virtual
    times = f"virtual time; --seed {seed} repeats it" if virtual else "times include the tracing itself"
    return tag(
        "footer",
        f"fourtuple {__version__}, the Linux connect() path in Python · every line is from the trace of this "
        f"one call · names and decisions of Linux {names_of(attempt).profile} · {times}",
    )

"""The four-tuple: where it is now and whom its port can still serve; or why there is none and what helps."""

from __future__ import annotations

from fourtuple.address import format_ipv4, parse_ipv4
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.explain import explain
from fourtuple.cli.html.markup import Html, join, tag
from fourtuple.cli.html.snapshot import FREE, RESERVED, SHARED, Bucket, Snapshot
from fourtuple.doctor.words import grouped
from fourtuple.errors import errno_name


def tuple_card(attempt: Attempt, tables: Snapshot) -> Html:
    """The card of this outcome."""
    return _failure(attempt) if attempt.error else _success(attempt, tables)


def _success(attempt: Attempt, tables: Snapshot) -> Html:
    request, bucket = attempt.request, tables.bucket
    four = tag(
        "p",
        f"{attempt.source}:",
        tag("strong", str(attempt.source_port), class_="port"),
        f" → {request.address}:{request.port}",
        class_="tuple",
        data_tuple=f"{attempt.source}:{attempt.source_port} {request.address}:{request.port}",
    )
    rows = [_fact("ehash", f"this four-tuple, {tables.state}; {_others(tables.connections)}")]
    if bucket is not None:
        rows.append(_fact(f"bhash[{bucket.port}]", _bucket_words(bucket)))
    rows.append(_fact("range", _room(tables)))
    return tag(
        "section",
        tag("h2", "The four-tuple is now taken"),
        four,
        tag("dl", *rows),
        tag("h3", f"Port {attempt.source_port} from now on"),
        tag("ul", *_still(attempt, bucket), class_="can"),
        class_="card tuple-card",
    )


def _fact(name: str, text: str) -> Html:
    return join(tag("dt", tag("code", name)), tag("dd", text))


def _others(connections: int) -> str:
    return f"{grouped(connections)} in the table" if connections != 1 else "alone in the table"


def _bucket_words(bucket: Bucket) -> str:
    values = f"fastreuse {_signed(bucket.fastreuse)}, fastreuseport {_signed(bucket.fastreuseport)}"
    owners = f"{bucket.owners} owner{'' if bucket.owners == 1 else 's'}"
    whose = "connect()'s own: others may join" if bucket.open_to_connect else "bind() has a part in it: closed"
    return f"{values}, {owners}; {whose}"


def _signed(value: int) -> str:
    return f"−{-value}" if value < 0 else str(value)


def _room(tables: Snapshot) -> str:
    ports = len(tables.states)
    left = tables.counts[FREE] + tables.counts[SHARED]
    text = f"{grouped(left)} of {grouped(ports)} ports are left for this destination"
    return text + (f", {grouped(tables.counts[RESERVED])} reserved" if tables.counts[RESERVED] else "")


def _still(attempt: Attempt, bucket: Bucket | None) -> list[Html]:
    """What the bucket's state allows: a connect() joins it for another four-tuple, or does not."""
    request, port = attempt.request, attempt.source_port
    others = (f"{request.address}:{_another(request.port)}", f"{_neighbour(request.address)}:{request.port}")
    if bucket is not None and not bucket.open_to_connect:
        return [
            _can(False, f"{port} → {other}", "a connect() that looks for a port passes this one over")
            for other in others
        ]
    rows = [
        _can(True, f"{port} → {others[0]}", "another port of the server"),
        _can(True, f"{port} → {others[1]}", "another server"),
    ]
    same = "the same four again: passed over, or EADDRNOTAVAIL where no port is left"
    return [*rows, _can(False, f"{port} → {request.address}:{request.port}", same)]


def _another(port: int) -> int:
    return port + 1 if port < 65_535 else port - 1


def _neighbour(address: str) -> str:
    number = parse_ipv4(address)
    return format_ipv4(number + 6 if number & 0xFF < 0xF0 else number - 6)


def _can(yes: bool, what: str, why: str) -> Html:
    mark = tag("span", "✓" if yes else "✗", class_=f"mark {'taken' if yes else 'used'}")
    return tag("li", mark, tag("span", tag("code", what), " ", tag("span", why, class_="note")))


# ------------------------------------------------------------------------------------------------ failure


def _failure(attempt: Attempt) -> Html:
    why = explain(attempt)
    call = "bind" if attempt.bind_code else "connect"
    says = [tag("code", why.function), ": "] if why.function else []
    parts = [
        tag("h2", f"Why {call}() said {errno_name(attempt.error)}"),
        tag("p", why.meaning + ".", class_="strong"),
        tag("p", *says, why.reason + ".", class_="say", data_reason=why.reason),
    ]
    if why.frees:
        parts.append(tag("h3", "What helps"))
        parts.append(tag("ul", *[_helps(True, text) for text in why.frees], class_="can"))
    if why.not_it:
        parts.append(tag("h3", "What does not"))
        parts.append(tag("ul", *[_helps(False, text) for text in why.not_it], class_="can"))
    return tag("section", *parts, class_="card tuple-card failure")


def _helps(yes: bool, text: str) -> Html:
    what, gap, gain = text.partition("  ")
    mark = tag("span", "✓" if yes else "✗", class_=f"mark {'taken' if yes else 'used'}")
    return tag("li", mark, tag("span", what, tag("span", f" {gain}", class_="good") if gap else None))

"""A port map as the document that schema/map-1.json describes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fourtuple import __version__
from fourtuple.cli import exits
from fourtuple.cli.port_words import LOOKS, legend, parity_names, words_of
from fourtuple.doctor.answers import as_json

if TYPE_CHECKING:
    from fourtuple.cli.map import Asked
    from fourtuple.doctor.answers import Prediction

SCHEMA = "fourtuple.map/1"
_LETTERS = {"·": "."}


def to_text(asked: Asked, ascii_only: bool = False) -> str:
    """The document."""
    return json.dumps(document(asked), indent=2, ensure_ascii=ascii_only)


def document(asked: Asked) -> dict[str, Any]:
    """Everything that the map shows; the ports as a string with a letter each."""
    states, reading = asked.states, asked.reading
    letters = {kind: _LETTERS.get(look.letter, look.letter) for kind, look in LOOKS.items()}
    return {
        "schema": SCHEMA,
        "version": __version__,
        "host": reading.system.hostname,
        "netns": reading.netns,
        "taken_at": round(reading.state.taken_at, 3),
        "is_live": reading.is_live,
        "buckets": states.is_buckets,
        "destination": None if states.is_buckets else _destination(asked.prediction),
        "others": [_destination(p) for p in asked.others],
        "low": states.low,
        "high": states.high,
        "first_parity": parity_names(states.low)[0],
        "ports": "".join(letters[kind] for kind in states.kinds),
        "kinds": [
            {
                "kind": kind,
                "letter": letters[kind],
                "words": words_of(kind, states.is_buckets),
                "taken_by_connect": kind in states.open,
                "first": first,
                "second": second,
            }
            for kind, first, second in legend(states)
        ],
        "held": [as_json(port) for port in states.held],
        "unread": list(reading.unread),
        "exit": exits.OK,
    }


def _destination(p: Prediction) -> dict[str, Any]:
    return {
        "src": p.source,
        "dst": p.destination,
        "dport": p.port,
        "sockets": p.used,
        "fill": round(p.fill, 4),
        "free": as_json(p.free),
        "free_first": as_json(p.free_first),
        "free_second": as_json(p.free_second),
        "errno": p.errno or None,
        "passed": as_json(p.passed),
        "cost_us": as_json(p.cost_us),
        "inferred": list(p.inferred),
        "reasons": list(p.reasons),
    }

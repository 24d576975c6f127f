"""Dataclasses <-> plain values, with every value checked on its way in: a report is a file that came from elsewhere.

Lives here: the walk along the fields.  Does not live here: the fields (report.py).

Rules
1. A field's type says what is taken: int (0 to 2**63), float (any finite number), str, bool, `X | None`, list, dict,
   another dataclass, Histogram, or Any.
2. Fields that the class does not know are refused too: a newer writer has a newer schema.
"""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fourtuple.dial.histogram import Histogram

T = TypeVar("T")
_LARGEST = 2**63


class ReportError(ValueError):
    """What was read is no report that this version understands; the message is one line."""


def dump(value: Any, scale: int = 1) -> Any:
    """Plain values of a dataclass and all below it."""
    if isinstance(value, Histogram):
        return value.to_json(scale)
    if is_dataclass(value):
        return {field.name: dump(getattr(value, field.name), _scale(field)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    if isinstance(value, dict):
        return {key: dump(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def load(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass that dump() described.  ReportError for anything else."""
    if not isinstance(data, dict):
        raise ReportError(f"{where or 'the report'} is not an object")
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ReportError(f"{_below(where, unknown[0])} does not belong there")
    hints = get_type_hints(cls)
    found = {}
    for name, field in known.items():
        if name in data:
            found[name] = _value(hints[name], data[name], _below(where, name), _scale(field))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ReportError(f"{_below(where, name)} is missing")
    return cls(**found)


def _scale(field: Field[Any]) -> int:
    scale: int = field.metadata.get("scale", 1)
    return scale


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _value(kind: Any, data: Any, where: str, scale: int = 1) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return data
    if kind is Histogram:
        return _histogram(data, where, scale)
    if is_dataclass(kind):
        return load(kind, data, where)  # type: ignore[arg-type]
    if origin is types.UnionType:
        return _optional(kind, data, where, scale)
    if origin is list:
        return _list(get_args(kind)[0], data, where)
    if origin is dict:
        return _dict(get_args(kind)[1], data, where)
    return _plain(kind, data, where)


def _optional(kind: Any, data: Any, where: str, scale: int) -> Any:
    """`X | None`."""
    inner = next(one for one in get_args(kind) if one is not type(None))
    return None if data is None else _value(inner, data, where, scale)


def _list(item: Any, data: Any, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise ReportError(f"{where} is not a list")
    return [_value(item, one, f"{where}[{i}]") for i, one in enumerate(data)]


def _dict(item: Any, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ReportError(f"{where} is not an object")
    return {key: _value(item, one, _below(where, key)) for key, one in data.items()}


def _histogram(data: Any, where: str, scale: int) -> Histogram:
    try:
        return Histogram.from_json(data, scale)
    except ValueError as error:
        raise ReportError(f"{where}: {error}") from None


def _plain(kind: Any, data: Any, where: str) -> Any:
    """int, float, str, bool: JSON's true is no number."""
    if kind is int and isinstance(data, int) and not isinstance(data, bool) and 0 <= data < _LARGEST:
        return data
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        if math.isfinite(data) and abs(data) < _LARGEST:
            return float(data)
    if kind in (str, bool) and isinstance(data, kind):
        return data
    raise ReportError(f"{where} is {_shown(data)}, not {_NOUN[kind]}")


_NOUN = {int: "a count", float: "a number", str: "a text", bool: "true or false"}


def _shown(data: Any) -> str:
    """Enough of a value to find it."""
    text = repr(data) if not isinstance(data, int) or abs(data) < _LARGEST else "too large"
    return text if len(text) <= 40 else text[:37] + "..."

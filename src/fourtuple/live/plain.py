"""Records <-> plain values (what JSON has), driven by the types of their fields; nothing of a file is believed.

Rules
1. thaw() gives exactly the type asked for, or PlainError; it makes no other objects, whatever the file says.
2. Text from a file has no control characters left: it may end up on a terminal.
3. Keys that the type does not have are left out; fields with a default may be missing.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_LONGEST_TEXT = 1 << 17
_LARGEST = 1 << 64


class PlainError(ValueError):
    """A value is not of the type that it should have."""


def freeze(value: Any, leave_out: tuple[str, ...] = ()) -> Any:
    """Plain values of a record, a tuple or a dict of them."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.name not in leave_out]
        return {name: freeze(getattr(value, name)) for name in names}
    if hasattr(value, "_asdict"):
        return freeze(value._asdict())
    if isinstance(value, tuple):
        return [freeze(item) for item in value]
    if isinstance(value, dict):
        return {str(key): freeze(item) for key, item in value.items()}
    return value


def thaw(kind: type[T], value: object, given: Mapping[str, object] | None = None) -> T:
    """The value that freeze() was given, of type `kind`; `given` are fields that were left out."""
    found: T = _thaw(kind, value, given or {})
    return found


def _thaw(kind: Any, value: object, given: Mapping[str, object]) -> Any:
    if kind in (int, float, bool, str):
        return _scalar(kind, value)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _optional(kind, value)
    if origin is tuple:
        return _tuple(kind, value)
    if origin is dict:
        return _dict(kind, value)
    return _record(kind, value, given)


def _scalar(kind: Any, value: object) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise PlainError(f"{str(value)[:40]!r} where {kind.__name__} should be")
    if isinstance(value, str):
        if len(value) > _LONGEST_TEXT:
            raise PlainError("a text that is far too long")
        return "".join(c if c.isprintable() or c == "\t" else "?" for c in value)
    if isinstance(value, (int, float)) and not -_LARGEST < value < _LARGEST:
        raise PlainError("a number that is far too large")
    return value


def _optional(kind: Any, value: object) -> Any:
    (inner,) = (arg for arg in get_args(kind) if arg is not type(None))
    return None if value is None else _thaw(inner, value, {})


def _tuple(kind: Any, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise PlainError("something else where a list should be")
    inner = get_args(kind)[0]
    return tuple(_thaw(inner, item, {}) for item in value)


def _dict(kind: Any, value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise PlainError("something else where a mapping should be")
    key_kind, inner = get_args(kind)
    return {_key(key_kind, key): _thaw(inner, item, {}) for key, item in value.items()}


def _key(kind: Any, key: str) -> Any:
    if kind is str:
        return _scalar(str, key)
    if not (key.isascii() and key.isdigit() and len(key) <= 20):
        raise PlainError(f"{key[:40]!r} where a number should be")
    return int(key)


def _record(kind: Any, value: object, given: Mapping[str, object]) -> Any:
    if not isinstance(value, dict):
        raise PlainError(f"something else where a {kind.__name__} should be")
    hints = _hints(kind)
    fields = {name: given[name] if name in given else _thaw(hints[name], value[name], {}) for name in hints
              if name in given or name in value}  # fmt: skip
    missing = hints.keys() - fields.keys() - _defaults(kind)
    if missing:
        raise PlainError(f"a {kind.__name__} without {', '.join(sorted(missing))}")
    return kind(**fields)


def _defaults(kind: Any) -> set[str]:
    """Fields that may be missing."""
    if not dataclasses.is_dataclass(kind):
        return set(kind._field_defaults)
    none = dataclasses.MISSING
    return {f.name for f in dataclasses.fields(kind) if f.default is not none or f.default_factory is not none}


def _hints(kind: Any) -> dict[str, Any]:
    """Fields of a dataclass or a named tuple, with their types."""
    names = getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)]
    hints = get_type_hints(kind)
    return {name: hints[name] for name in names}

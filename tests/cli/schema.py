"""As much of JSON Schema as the schemas of this project use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fourtuple.cli

_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_KNOWN = {
    "$schema", "$defs", "title", "description", "type", "const", "enum", "required", "properties",
    "additionalProperties", "items", "minItems", "maxItems", "minimum", "maximum",
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    """A schema of the package."""
    path = Path(fourtuple.cli.__path__[0]) / "schema" / f"{name}.json"
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


def check(schema: dict[str, Any], value: Any, where: str = "$", defs: dict[str, Any] | None = None) -> None:
    """Assert that `value` is what the schema says; `#/$defs/NAME` is looked up in its outermost part."""
    defs = schema.get("$defs", {}) if defs is None else defs
    if "$ref" in schema:
        schema = defs[schema["$ref"].removeprefix("#/$defs/")]
    assert set(schema) <= _KNOWN, f"{where}: this checker does not know {set(schema) - _KNOWN}"
    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"
    if "type" in schema:
        _check_type(schema["type"], value, where)
    if isinstance(value, dict):
        _check_object(schema, value, where, defs)
    elif isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)), where
        for i, item in enumerate(value):
            check(schema["items"], item, f"{where}[{i}]", defs)
    elif isinstance(value, (int, float)):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), f"{where}: {value}"


def _check_type(types: str | list[str], value: Any, where: str) -> None:
    names = [types] if isinstance(types, str) else types
    fits = [name for name in names if isinstance(value, _TYPES[name]) and (name == "boolean" or value is not True)]
    assert fits, f"{where}: {value!r} is not of type {names}"


def _check_object(schema: dict[str, Any], value: dict[str, Any], where: str, defs: dict[str, Any]) -> None:
    if isinstance(schema["additionalProperties"], dict):  # any names, all of one kind
        for name, item in value.items():
            check(schema["additionalProperties"], item, f"{where}.{name}", defs)
        return
    assert set(schema["required"]) <= set(value), f"{where}: {set(schema['required']) - set(value)} missing"
    assert set(value) <= set(schema["properties"]), f"{where}: {set(value) - set(schema['properties'])} too much"
    for name, item in value.items():
        check(schema["properties"][name], item, f"{where}.{name}", defs)

"""Columns: one typed array per field, all slices of a single anonymous private mapping.

Lives here: the allocation only.  Pages that were never written cost nothing, nothing is ever copied to grow, and the
garbage collector has nothing to walk.  MAP_PRIVATE because Python's default for an anonymous mapping is shared, and a
forked child would then write into its parent's engine.
"""

from __future__ import annotations

import mmap

TYPE_CHECKING = False  # typing is not imported: it would be a third of what a small program waits for
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    Code = Literal["B", "b", "H", "I", "Q"]
else:
    Code = str
_ITEM_SIZE: dict[Code, int] = {"B": 1, "b": 1, "H": 2, "I": 4, "Q": 8}
_PAGE = 4096


def allocate_columns(spec: Iterable[tuple[str, Code]], rows: int) -> dict[str, memoryview]:
    """Zeroed columns `{name: memoryview of rows items}` for `(name, struct code)` pairs, each on pages of its own."""
    fields = list(spec)
    sizes = [-(-rows * _ITEM_SIZE[code] // _PAGE) * _PAGE for _, code in fields]
    whole = _mapping(sum(sizes))
    columns: dict[str, memoryview] = {}
    offset = 0
    for (name, code), size in zip(fields, sizes, strict=True):
        columns[name] = whole[offset : offset + rows * _ITEM_SIZE[code]].cast(code)
        offset += size
    return columns


def allocate_records(spec: Iterable[tuple[str, Code]], rows: int) -> dict[str, memoryview]:
    """The same with the fields of a row side by side: a row visited at random is one cache line instead of one a field.

    Each field has to start at a multiple of its size, and the row be a multiple of its largest.
    """
    fields = list(spec)
    size = sum(_ITEM_SIZE[code] for _, code in fields)
    whole = _mapping(rows * size)[: rows * size]
    columns: dict[str, memoryview] = {}
    offset = 0
    for name, code in fields:
        item = _ITEM_SIZE[code]
        columns[name] = whole.cast(code)[offset // item :: size // item]
        offset += item
    return columns


def _mapping(size: int) -> memoryview:
    return memoryview(mmap.mmap(-1, max(size, _PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

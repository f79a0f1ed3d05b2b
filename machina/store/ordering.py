"""MongoDB's order over all values, as keys that Python can compare and sort."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable
from datetime import datetime
from functools import total_ordering
from typing import Any, Final

from machina.store.base import QueryRefused, Record, Sort
from machina.store.paths import MISSING, leaves, split_path
from machina.store.values import as_utc

NOTHING, NUMBER, TEXT, OBJECT, LIST, BLOB, TRUTH, DATE = range(1, 9)
_EMPTY: Final = (0, 0)
"""The sort key of an empty list: it comes before nothing at all."""
_RANKS: Final[tuple[tuple[Any, int], ...]] = (
    (bool, TRUTH),  # before int: a truth value is no number
    (int | float, NUMBER),
    (str, TEXT),
    (dict, OBJECT),
    (list | tuple, LIST),
    (datetime, DATE),
    (bytes, BLOB),
)
_RANK_OF: Final[dict[type, int]] = {
    type(None): NOTHING,
    bool: TRUTH,
    int: NUMBER,
    float: NUMBER,
    str: TEXT,
    dict: OBJECT,
    list: LIST,
    datetime: DATE,
    bytes: BLOB,
}
MAX_SORT_KEYS: Final = 32

Key = tuple[int, Any]


def rank(value: Any) -> int:
    """The place of a value's type in the order; 0 for a type the store does not know."""
    known = _RANK_OF.get(type(value))
    if known is not None:
        return known
    if value is MISSING:
        return NOTHING
    return next((place for kind, place in _RANKS if isinstance(value, kind)), 0)


def value_key(value: Any) -> Key:
    """A key that is equal for equal values and ordered as MongoDB orders them.

    Numbers compare across int and float, texts by code point, objects field by field in the order
    of their fields, bytes by length first.
    """
    place = rank(value)
    if place == OBJECT:
        return place, tuple((rank(v), k, value_key(v)) for k, v in value.items())
    if place == LIST:
        return place, tuple(value_key(item) for item in value)
    if place == BLOB:
        return place, (len(value), value)
    if place == DATE:
        return place, as_utc(value)
    return place, (0 if place <= NOTHING else value)


@total_ordering
class _Descending:
    """Turns the order of a key around."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.key == other.key)

    def __lt__(self, other: _Descending) -> bool:
        return bool(other.key < self.key)

    __hash__ = None  # type: ignore[assignment]  # lives only while a list is being sorted


class RecordOrder:
    """The order that a `Sort` asks for. Ties are broken by `_id` in the direction of the last key.

    A list sorts by its smallest element, descending by its largest.

    Raises:
        QueryRefused: a field or direction that cannot be sorted by.
    """

    def __init__(self, sort: Sort) -> None:
        self.keys = tuple((check_field(field), check_direction(field, d)) for field, d in sort)
        if len(self.keys) > MAX_SORT_KEYS:
            raise QueryRefused(f"At most {MAX_SORT_KEYS} sort keys, not {len(self.keys)}.")
        if all(field != "_id" for field, _ in self.keys):
            self.keys += (("_id", self.keys[-1][1] if self.keys else 1),)
        self._parts = [(split_path(field, "sort"), direction) for field, direction in self.keys]

    def __call__(self, record: Record) -> tuple[Any, ...]:
        """The key of one record."""
        return tuple(_sort_key(record, parts, direction) for parts, direction in self._parts)

    def first(self, records: Iterable[Record], count: int | None) -> list[Record]:
        """The first `count` records in this order; no more than these are held at a time."""
        if count is None:
            return sorted(records, key=self)
        return heapq.nsmallest(count, records, key=self)


def _sort_key(record: Record, parts: tuple[str, ...], direction: int) -> Any:
    keys: list[Key] = []
    for value in leaves(record, parts):
        if type(value) is list:
            keys.extend([value_key(item) for item in value] if value else [_EMPTY])
        else:
            keys.append(value_key(value))
    if not keys:
        keys.append((NOTHING, 0))
    return min(keys) if direction == 1 else _Descending(max(keys))


def check_field(field: Any) -> str:
    """A field name that may be sorted by or projected.

    Raises:
        QueryRefused: not text, empty, or an operator.
    """
    if not isinstance(field, str) or field.startswith("$"):
        raise QueryRefused(f"Cannot sort by {field!r}: name a field.", field="sort")
    return field


def check_direction(field: str, direction: Any) -> int:
    """1 or -1."""
    if direction in (1, -1) and not isinstance(direction, bool):
        return operator.index(direction)
    raise QueryRefused(f"Sort '{field}' by 1 or -1, not {direction!r}.", field="sort")

"""What a change does to a record. Pure: the record given is left as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final, Protocol

from machina.store.base import CHANGE_OPERATORS, Change, Query, QueryRefused, Record
from machina.store.matching import conjuncts
from machina.store.ordering import value_key
from machina.store.paths import MISSING, get_at, set_at, split_path, unset_at

_PUSH_MODIFIERS: Final = ("$each", "$position", "$slice", "$sort")


class Apply(Protocol):
    """Gives the record after a change."""

    def __call__(self, record: Record, *, inserting: bool = False) -> Record: ...


def compile_change(change: Change) -> Apply:
    """The function that a change is; `$setOnInsert` counts only while a record is inserted.

    Raises:
        QueryRefused: an unknown operator, or two operations on one path. The function raises it
            for a changed `_id`, or a value on the way that an operation does not fit.
    """
    operations = _operations(change)

    def apply(record: Record, *, inserting: bool = False) -> Record:
        changed = record.copy()
        for name, parts, operand in operations:
            if name != "$setOnInsert" or inserting:
                _APPLY[name](changed, parts, operand)
        if not inserting and changed.get("_id") != record.get("_id"):
            raise QueryRefused("A change leaves '_id' as it is.", field="_id")
        return changed

    return apply


def start_record(query: Query) -> Record:
    """What an upsert inserts before its change: the equality parts of its query.

    Raises:
        QueryRefused: the query gives a path twice.
    """
    record: Record = {}
    for path, name, operand in conjuncts(query):
        if name != "$eq":
            continue
        parts = split_path(path, path)
        if get_at(record, parts) is not MISSING:
            raise QueryRefused(f"An upsert's query gives '{path}' twice.", field=path)
        set_at(record, parts, operand)
    return record


def _operations(change: Change) -> list[tuple[str, tuple[str, ...], Any]]:
    operations = []
    for name, fields in change.items():
        if name not in CHANGE_OPERATORS:
            known = " ".join(sorted(CHANGE_OPERATORS))
            raise QueryRefused(
                f"The change '{name!s:.40}' is not known; known are {known}.", field=str(name)
            )
        if not isinstance(fields, Mapping):
            raise QueryRefused(f"'{name}' takes an object of paths and values.", field=name)
        operations += [(name, _change_path(path, name), value) for path, value in fields.items()]
    if len(operations) > 1:
        _require_apart([parts for _, parts, _ in operations])
    return operations


def _change_path(path: Any, name: str) -> tuple[str, ...]:
    if not isinstance(path, str):
        raise QueryRefused(f"'{name}' takes paths as text, not {path!r:.80}.", field=name)
    parts = split_path(path, name)
    if any(part.startswith("$") for part in parts):
        raise QueryRefused(f"'{name}' cannot change the path '{path:.80}'.", field=path)
    return parts


def _require_apart(paths: list[tuple[str, ...]]) -> None:
    """Two operations may not meet: neither the same path, nor one inside the other."""
    if len({parts[0] for parts in paths}) == len(paths):
        return
    ordered = sorted(paths)
    for shorter, longer in pairwise(ordered):
        if longer[: len(shorter)] == shorter:
            path = ".".join(longer)
            raise QueryRefused(f"A change names '{path}' twice.", field=path)


def _increase(record: Record, parts: tuple[str, ...], operand: Any) -> None:
    current = get_at(record, parts)
    before = 0 if current is MISSING else current
    for number in (before, operand):
        if not isinstance(number, int | float) or isinstance(number, bool):
            path = ".".join(parts)
            raise QueryRefused(f"'$inc' adds numbers, not {number!r:.80}.", field=path)
    set_at(record, parts, before + operand)


def _raise_to(record: Record, parts: tuple[str, ...], operand: Any) -> None:
    current = get_at(record, parts)
    if current is MISSING or value_key(current) < value_key(operand):
        set_at(record, parts, operand)


def _append(record: Record, parts: tuple[str, ...], operand: Any) -> None:
    path = ".".join(parts)
    if isinstance(operand, Mapping) and any(name in operand for name in _PUSH_MODIFIERS):
        raise QueryRefused("'$push' appends one value and has no modifiers.", field=path)
    current = get_at(record, parts)
    if current is MISSING:
        current = []
    if not isinstance(current, list):
        raise QueryRefused(f"'$push' needs a list at '{path}'.", field=path)
    set_at(record, parts, [*current, operand])


_APPLY: Final[dict[str, Callable[[Record, tuple[str, ...], Any], None]]] = {
    "$set": set_at,
    "$setOnInsert": set_at,
    "$unset": lambda record, parts, _: unset_at(record, parts),
    "$inc": _increase,
    "$max": _raise_to,
    "$push": _append,
}

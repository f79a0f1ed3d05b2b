"""The part of a query that SQL can answer: conditions on `_id` and on indexed fields.

An indexed field has a column beside the record, holding its *slot*: null for null or absent,
numbers as they are, `s…` for texts, `t0` and `t1` for truth values, `u…` for dates. SQLite orders
slots as MongoDB orders values (nothing, numbers, texts, truth values, dates), so equality, ranges
and sorting mean the same in both, and a plan that took every condition is exact: no record need be
decoded to count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from machina.store.base import Query
from machina.store.matching import conjuncts
from machina.store.ordering import DATE, NOTHING, NUMBER, TEXT, TRUTH, rank
from machina.store.predicates import COMPARISONS
from machina.store.values import date_text, sound_text

Slot = int | float | str | None
_SQL_SIGNS: Final = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_NEVER: Final = "0"
_ALWAYS: Final = "1"
_MAX_PARAMETERS: Final = 20_000
_BRACKETS: Final = {TEXT: ("s", "t"), TRUTH: ("t", "u"), DATE: ("u", "v")}
"""Where the slots of a type begin and end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A condition in SQL that every matching row fulfils; `exact`: and no other row."""

    where: str
    parameters: tuple[Any, ...]
    exact: bool
    id: str | None = None
    """Set when the query names the one record that can match."""


class _Unplanned(Exception):
    """SQL cannot tell; the record must be looked at."""


def column(field: str) -> str:
    """The column of an indexed field."""
    return "_id" if field == "_id" else f"f_{field}"


def slot_of(value: Any) -> Slot:
    """The slot of a single value; what cannot be stored in a record (NaN) is null, as there."""
    if value is None:
        return None
    if isinstance(value, str):
        return "s" + (value if value.isascii() else sound_text(value))
    if isinstance(value, bool):
        return "t1" if value else "t0"
    if isinstance(value, datetime):
        return "u" + date_text(value)
    return value if isinstance(value, int) or math.isfinite(value) else None


def plan_query(query: Query, fields: Collection[str]) -> Plan:
    """The plan of a query that compiles; `fields` are those with a column, without `_id`."""
    id = query.get("_id")
    if isinstance(id, str) and id.isascii():
        # One row at most: any more conditions would only tempt SQLite to another index.
        return Plan("_id = ?", (id,), exact=len(query) == 1, id=id)
    conditions: list[str] = []
    parameters: list[Any] = []
    exact = True
    for path, name, operand in conjuncts(query):
        part = (
            _plan_any(operand, fields) if name == "$or" else _plan_one(path, name, operand, fields)
        )
        if part is None or len(parameters) + len(part.parameters) > _MAX_PARAMETERS:
            exact = False
        else:
            conditions.append(part.where)
            parameters += part.parameters
            exact = exact and part.exact
    return Plan(" AND ".join(conditions) or _ALWAYS, tuple(parameters), exact)


def _plan_one(path: str, name: str, operand: Any, fields: Collection[str]) -> Plan | None:
    if path != "_id" and path not in fields:
        return None
    planner = _Identity() if path == "_id" else _Field(column(path))
    try:
        condition, values = planner.plan(name, operand)
    except _Unplanned:
        return None
    return Plan(condition, tuple(values), exact=True)


def _plan_any(queries: Sequence[Query], fields: Collection[str]) -> Plan | None:
    """The plan of an `$or`; it helps only when SQL can tell something about every branch."""
    plans = [plan_query(query, fields) for query in queries]
    if any(plan.where == _ALWAYS for plan in plans):
        return None
    where = " OR ".join(f"({plan.where})" for plan in plans)
    parameters = tuple(value for plan in plans for value in plan.parameters)
    return Plan(f"({where})", parameters, all(plan.exact for plan in plans))


def plan_order(keys: Sequence[tuple[str, int]], fields: Collection[str]) -> str | None:
    """The `ORDER BY` of sort keys, None when one of them has no column."""
    if any(field != "_id" and field not in fields for field, _ in keys):
        return None
    return ", ".join(f"{column(field)} {'ASC' if d == 1 else 'DESC'}" for field, d in keys)


class _Field:
    """Conditions on the slot of one field."""

    def __init__(self, name: str) -> None:
        self._column = name

    def plan(self, name: str, operand: Any) -> tuple[str, list[Any]]:
        """The condition of one operator and its parameters. Raises `_Unplanned`."""
        if name in _PLANNERS:
            return _PLANNERS[name](self, operand)
        if name in COMPARISONS:
            return self._compare(name, operand)
        raise _Unplanned

    def slots(self, operands: Any) -> tuple[list[Any], bool]:
        """The slots that some record can have, and whether null or absent is among them."""
        known, nothing = [], False
        for value in operands:
            place = rank(value)
            if place == NOTHING:
                nothing = True
            elif place in _BRACKETS or place == NUMBER:
                slot = _query_slot(value)
                if slot is not None:
                    known.append(slot)
        return known, nothing

    def equal(self, operand: Any) -> tuple[str, list[Any]]:
        return self.among((operand,))

    def unequal(self, operand: Any) -> tuple[str, list[Any]]:
        return self.not_among((operand,))

    def among(self, operand: Any) -> tuple[str, list[Any]]:
        slots, nothing = self.slots(operand)
        if not slots:
            return (f"{self._column} IS NULL" if nothing else _NEVER), []
        if nothing:
            return f"({self._column} IS NULL OR {self._in(slots)})", slots
        return self._in(slots), slots

    def not_among(self, operand: Any) -> tuple[str, list[Any]]:
        slots, nothing = self.slots(operand)
        if not slots:
            return (f"{self._column} IS NOT NULL" if nothing else _ALWAYS), []
        if nothing:  # a null is not unequal in SQL, so that it is left out by itself
            return f"NOT {self._in(slots)}", slots
        return f"({self._column} IS NULL OR NOT {self._in(slots)})", slots

    def _in(self, slots: Sequence[Any]) -> str:
        if len(slots) == 1:
            return f"{self._column} = ?"
        return f"{self._column} IN ({', '.join('?' * len(slots))})"

    def _compare(self, name: str, operand: Any) -> tuple[str, list[Any]]:
        place = rank(operand)
        if place == NOTHING:
            return (f"{self._column} IS NULL" if name in ("$gte", "$lte") else _NEVER), []
        slots, _ = self.slots((operand,))
        if not slots:
            return _NEVER, []
        condition = f"{self._column} {_SQL_SIGNS[name]} ?"
        upwards = name in ("$gt", "$gte")
        if place == NUMBER:
            return (f"({condition} AND {self._column} < '')" if upwards else condition), slots
        begin, end = _BRACKETS[place]
        bound = f"{self._column} < '{end}'" if upwards else f"{self._column} >= '{begin}'"
        return f"({condition} AND {bound})", slots


class _Identity(_Field):
    """Conditions on `_id`, whose column holds the text itself and never null."""

    def __init__(self) -> None:
        super().__init__("_id")

    def slots(self, operands: Any) -> tuple[list[Any], bool]:
        return [_sound(value) for value in operands if isinstance(value, str)], False

    def _compare(self, name: str, operand: Any) -> tuple[str, list[Any]]:
        slots, _ = self.slots((operand,))
        return (f"_id {_SQL_SIGNS[name]} ?" if slots else _NEVER), slots


_PLANNERS: Final[dict[str, Callable[[_Field, Any], tuple[str, list[Any]]]]] = {
    "$eq": lambda planner, operand: planner.equal(operand),
    "$ne": lambda planner, operand: planner.unequal(operand),
    "$in": lambda planner, operand: planner.among(operand),
    "$nin": lambda planner, operand: planner.not_among(operand),
}


def _query_slot(value: Any) -> Slot:
    """The slot to look for; None for NaN, which nothing is equal to, above or below."""
    if isinstance(value, str):
        return "s" + _sound(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise _Unplanned
    return slot_of(value)


def _sound(text: str) -> str:
    """A text that is looked for; one that no record can hold must not find its repaired form."""
    if not text.isascii() and sound_text(text) != text:
        raise _Unplanned
    return text

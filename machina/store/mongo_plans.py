"""What of a query or a change may be left to the server, in the server's own terms.

MongoDB itself gives the closed language the meaning of matching.py and changes.py, so nearly all
of it goes there. Regular expressions do not: they would backtrack, in another dialect. A server
that only speaks MongoDB's protocol is trusted with texts in `_id` and in indexed fields. What a
plan does not take is tested in this process, on what the server finds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from machina.errors import Invalid
from machina.store.base import Change, Query, Record
from machina.store.matching import conjuncts, is_operators
from machina.store.mongo_values import (
    INDEXED,
    VERSION,
    Converter,
    check_record,
    require_indexable,
    stored_path,
)
from machina.store.paths import list_index
from machina.store.values import sound_text

Filter = dict[str, Any]
_LOGICAL: Final = ("$and", "$or", "$nor")
_INT64: Final = range(-(2**63), 2**63)
_LITERAL_PATTERN: Final = re.compile(r"\^?[A-Za-z0-9 _:@/=,;-]+", re.A)
"""Patterns that mean the same in every dialect and cannot backtrack."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A filter that every matching record passes; `exact`: and no other record."""

    filter: Filter
    exact: bool
    indexed: bool
    """Whether the query names `_id` or indexed fields only, so that it cannot take long."""


class _Unplanned(Exception):
    """The server cannot tell; the record must be looked at."""


def plan_query(query: Query, fields: Collection[str], *, faithful: bool) -> Plan:
    """The plan of a query that compiles.

    Args:
        query: in the closed language.
        fields: the indexed fields of the collection.
        faithful: whether the server means by a query what MongoDB does.
    """
    known = {"_id", *fields}
    indexed = all(path in known for path, _, _ in conjuncts(query))
    if faithful:
        translator = _Translator()
        return Plan(translator.query(query), translator.exact, indexed)
    conditions, exact = [], True
    for path, name, operand in conjuncts(query):
        texts = _texts(name, operand) if path in known else None
        if texts is None:
            exact = False
        else:
            conditions.append({path: texts[0] if name == "$eq" else {"$in": texts}})
    return Plan(_all(conditions), exact, indexed)


def _texts(name: str, operand: Any) -> list[str] | None:
    """The operand of an equality with texts that any server can compare."""
    if name not in ("$eq", "$in"):
        return None
    values = [operand] if name == "$eq" else list(operand)
    texts = [value for value in values if isinstance(value, str) and value.isprintable()]
    return texts if len(texts) == len(values) else None


def _all(conditions: Sequence[Filter]) -> Filter:
    return conditions[0] if len(conditions) == 1 else {"$and": conditions} if conditions else {}


class _Translator:
    """Translates a query; what cannot be is left out where that only widens it."""

    def __init__(self) -> None:
        self.exact = True

    def query(self, query: Query) -> Filter:
        conditions = []
        for name, condition in query.items():
            try:
                conditions.append(self._part(name, condition))
            except _Unplanned:
                self.exact = False
        return _all([condition for condition in conditions if condition])

    def _part(self, name: str, condition: Any) -> Filter:
        if name == "$and":
            return _all([part for item in condition if (part := self.query(item))])
        if name == "$or":
            ways = [self.query(item) for item in condition]
            return {"$or": ways} if all(ways) else {}  # one way is open to any record
        if name == "$nor":
            return {"$nor": [_exactly(item, _Translator.query) for item in condition]}
        return {stored_path(name): self.condition(condition)}

    def condition(self, condition: Any) -> Filter:
        if not is_operators(condition):
            return {"$eq": _literal(condition)}
        operators: Filter = {}
        for name, operand in condition.items():
            try:
                operators |= self._operator(name, operand, condition)
            except _Unplanned:
                self.exact = False
        if not operators:
            raise _Unplanned
        return operators

    def _operator(self, name: str, operand: Any, condition: Mapping[str, Any]) -> Filter:
        if name == "$options":
            return {}
        if name == "$regex":
            return _regex(operand, condition.get("$options", ""))
        if name == "$not":
            return {name: _exactly(operand, _Translator.condition)}
        if name == "$elemMatch":
            return {name: self._element(operand)}
        if name == "$all":
            return {name: [self._every(item) for item in operand]}
        if name == "$exists":
            return {name: bool(operand)}
        return {name: _literal(list(operand) if isinstance(operand, set | frozenset) else operand)}

    def _every(self, item: Any) -> Any:
        if isinstance(item, Mapping) and list(item) == ["$elemMatch"]:
            return {"$elemMatch": self._element(item["$elemMatch"])}
        return _literal(item)

    def _element(self, operand: Mapping[str, Any]) -> Filter:
        if is_operators(operand) and not any(name in operand for name in _LOGICAL):
            return _exactly(operand, _Translator.condition)
        self.exact = False  # MongoDB takes a list within the list for an object, too
        return self.query(operand)


def _exactly(part: Any, translate: Callable[[_Translator, Any], Filter]) -> Filter:
    """A part that must not be widened: below a negation, or about one and the same element."""
    translator = _Translator()
    translated = translate(translator, part)
    if not translator.exact:
        raise _Unplanned
    return translated


def _regex(pattern: str, options: str) -> Filter:
    if not _LITERAL_PATTERN.fullmatch(pattern) or set(options) - {"i"}:
        raise _Unplanned
    return {"$regex": pattern, "$options": options}


def _literal(value: Any) -> Any:
    """A value as records hold it. Raises `_Unplanned` for one that no record does."""
    _require_kept(value)
    return Converter(has_bytes=True).value(value)


def _require_kept(value: Any) -> None:
    if isinstance(value, str):
        kept = sound_text(value) == value
    elif isinstance(value, int):
        kept = value in _INT64
    else:
        kept = not isinstance(value, float) or math.isfinite(value)
    if not kept:
        raise _Unplanned
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_kept(key)
            _require_kept(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_kept(item)


def plan_update(collection: str, change: Change, converter: Converter) -> Filter | None:
    """The server's form of a change that compiles, which counts the version up as well.

    None when the server would do something else than changes.py, or would not refuse what that
    refuses: then the change must be made in this process.
    """
    update: Filter = {"$inc": {VERSION: 1}}
    indexed = INDEXED[collection]
    try:
        for name, operands in change.items():
            for path, operand in operands.items():
                _require_plain(name, path, operand)
                if path.partition(".")[0] in indexed:
                    _require_single(collection, name, path, operand)
                value = "" if name == "$unset" else converter.value(operand)
                update.setdefault(name, {})[stored_path(path)] = value
    except (_Unplanned, Invalid):
        return None
    return update


def _require_plain(name: str, path: str, operand: Any) -> None:
    top, *below = path.split(".")
    if top == "_id" and (below or name != "$setOnInsert"):
        raise _Unplanned
    if any(list_index(part) is not None for part in below):
        raise _Unplanned  # MongoDB fills much larger gaps in a list
    if name == "$inc" and (isinstance(operand, bool) or not isinstance(operand, int | float)):
        raise _Unplanned
    if name == "$push" and isinstance(operand, Mapping) and any(map(_is_operator, operand)):
        raise _Unplanned


def _is_operator(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("$")


def _require_single(collection: str, name: str, path: str, operand: Any) -> None:
    if "." in path or name not in ("$set", "$setOnInsert", "$unset"):
        raise _Unplanned
    if name != "$unset":
        require_indexable(collection, path, operand)


def may_insert(collection: str, query: Query, inserted: Record) -> bool:
    """Whether the server would make exactly `inserted` of an upsert that finds nothing.

    Later versions of MongoDB also take a value out of an `$in` or `$or` with a single one.
    """
    try:
        check_record(collection, inserted)
    except Invalid:
        return False
    return all(name == "$eq" for _, name, _ in conjuncts(query))

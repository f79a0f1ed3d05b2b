"""From evaluated filters to a query of the store: ids, metadata, nulls, operators. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from machina.engine.tasks.documents.marks import Operator
from machina.errors import TaskFailed

Query = dict[str, Any]

_ID_NAMES: Final = ("_id", "document_id")
_LOGICAL: Final = ("$and", "$or", "$nor")
_NOTHING: Final[Query] = {"_id": {"$in": []}}
_MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class Selection:
    """The documents that a task means."""

    query: Query
    names_id: bool
    """Whether it says which document by its id; then there is nothing to insert."""


def select(filters: Mapping[str, Any], where: str) -> Selection:
    """The selection of evaluated filters, in which authored operators are `Operator`s.

    A filter that is null is left out, and so is a null operand of an operator; an id that is null
    matches nothing. Only authored operators count as such: anything else is compared by equality.

    Raises:
        TaskFailed: a filter that cannot be one; `where` and its path are in the message.
    """
    query = _Builder(where).query(filters, 0)
    return Selection(query, any(name in filters for name in _ID_NAMES))


def equal_to(value: Any) -> Any:
    """The condition that a value is this one, whatever keys it has."""
    return {"$eq": value} if isinstance(value, Mapping) and any(map(_is_dollar, value)) else value


def metadata_paths(metadata: Mapping[str, Any], where: str) -> Query:
    """The paths at which every entry of a metadata dictionary lies, with its value.

    Raises:
        TaskFailed: an entry whose key is no path of one step.
    """
    paths = {}
    for key, value in metadata.items():
        if not isinstance(key, str) or not key or _is_dollar(key) or "." in key or "\0" in key:
            raise TaskFailed(
                f"metadata of {where} has the key {key!r:.80}, which documents cannot be found by; "
                "use text without '.' that does not begin with '$'."
            )
        paths[f"metadata.{key}"] = value
    return paths


class _Builder:
    """Builds one query."""

    def __init__(self, where: str) -> None:
        self._where = where

    def query(self, filters: Any, depth: int) -> Query:
        if not isinstance(filters, Mapping) or depth > _MAX_DEPTH:
            self._fail("a query is a dictionary of filters, not nested too deep")
        built: list[Query] = []
        for key, value in filters.items():
            if isinstance(key, Operator):
                built.append(self._logical(key, value, depth))
            elif not isinstance(key, str) or _is_dollar(key):
                self._fail(f"{key!r:.80} came out of data, and is no field")
            elif key in _ID_NAMES:
                built.append(self._id(value))
            elif key == "metadata" and isinstance(value, Mapping) and not _has_operators(value):
                entries = metadata_paths(value, self._where)
                built += [self._field(path, entry) for path, entry in entries.items()]
            else:
                built.append(self._field(key, value))
        return _together(built)

    def _logical(self, name: Operator, parts: Any, depth: int) -> Query:
        """`$or` and its like; an alternative of which nothing is left is none."""
        if name not in _LOGICAL:
            return {str(name): parts}  # the store refuses it by name
        if parts is None:
            return {}
        if not isinstance(parts, list | tuple):
            self._fail(f"'{name}' takes a list of queries")
        queries = [self.query(part, depth + 1) for part in parts if part is not None]
        queries = [query for query in queries if query]
        return {str(name): queries} if queries else {}

    def _id(self, value: Any) -> Query:
        if value is None:
            return _NOTHING
        if not isinstance(value, Mapping):
            return {"_id": _id_text(value)}
        if not _has_operators(value):
            return {"_id": equal_to(value)}
        if any(name in value and value[name] is None for name in ("$eq", "$in")):
            return _NOTHING
        operators = self._operators(value, "_id")
        for name in ("$in", "$nin"):
            if isinstance(operators.get(name), list):
                operators[name] = [_id_text(i) for i in operators[name] if i is not None]
        for name in ("$eq", "$ne"):
            if name in operators:
                operators[name] = _id_text(operators[name])
        return {"_id": operators} if operators else {}

    def _field(self, path: str, value: Any) -> Query:
        if value is None:
            return {}
        if not _has_operators(value):
            return {path: equal_to(value)}
        operators = self._operators(value, path)
        return {path: operators} if operators else {}

    def _operators(self, value: Mapping[Any, Any], path: str) -> Query:
        operators: Query = {}
        for name, operand in value.items():
            if not isinstance(name, Operator):
                self._fail(f"'{path}' mixes operators with {name!r:.80}, which came out of data")
            if operand is None:
                continue
            meant = self._operand(name, operand, path)
            if not (name == "$not" and meant == {}):
                operators[str(name)] = meant
        return operators if set(operators) != {"$options"} else {}

    def _operand(self, name: Operator, operand: Any, path: str) -> Any:
        if name == "$not":
            return self._negated(operand, path)
        if name == "$elemMatch" and isinstance(operand, Mapping):
            return self._element(operand, path)
        if name == "$all" and isinstance(operand, list):
            return [self._every(item, path) for item in operand]
        return operand

    def _element(self, operand: Mapping[Any, Any], path: str) -> Query:
        inside = any(isinstance(key, Operator) and key not in _LOGICAL for key in operand)
        return self._operators(operand, path) if inside else self.query(operand, 1)

    def _negated(self, operand: Any, path: str) -> Query:
        if not _has_operators(operand):
            self._fail(f"'$not' of '{path}' takes operators of the template's own text")
        return self._operators(operand, path)

    def _every(self, item: Any, path: str) -> Any:
        if not (isinstance(item, Mapping) and any(map(_is_dollar, item))):
            return item
        return self._operators(item, path)  # `$elemMatch`, and only if the author wrote it

    def _fail(self, problem: str) -> NoReturn:
        raise TaskFailed(f"filters of {self._where}: {problem}; correct the filters.")


def _together(parts: list[Query]) -> Query:
    """All of the parts; two that speak of one field both hold."""
    query: Query = {}
    more: list[Query] = []
    for part in parts:
        if query.keys() & part.keys():
            more.append(part)
        else:
            query.update(part)
    return {**query, "$and": [*query.pop("$and", []), *more]} if more else query


def _id_text(value: Any) -> Any:
    """An id as text: one of digits alone is a number to the expression language."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _has_operators(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(key, Operator) for key in value)


def _is_dollar(key: Any) -> bool:
    return isinstance(key, str) and key.startswith("$")

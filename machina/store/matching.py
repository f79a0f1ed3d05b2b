"""What a query means: compiles the closed query language into a function over one record.

The meaning is MongoDB's. A path spreads over the lists on its way; a list matches what one of its
elements matches; a missing field counts as null; numbers, texts, dates, truth values and bytes
compare only among themselves. Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from machina.store.base import Query, Record
from machina.store.paths import MISSING, leaves, split_path
from machina.store.predicates import (
    COMPARISONS,
    ValueTest,
    among,
    check_literal,
    compares,
    equals,
    has_size,
    refused,
    refused_operator,
    searches,
)

MAX_QUERY_DEPTH: Final = 16
MAX_CLAUSES: Final = 1_000

RecordTest = Callable[[Record], bool]
_LOGICAL: Final = ("$and", "$or", "$nor")


def compile_query(query: Query) -> RecordTest:
    """The test that a query is.

    Raises:
        QueryRefused: an unknown operator, an operand that its operator does not take, or a bound
            passed; `field` says where. The test itself raises it for a regular expression that
            takes too many steps.
    """
    return _Compiler().query(query, "", 0)


def conjuncts(query: Query) -> Iterator[tuple[str, str, Any]]:
    """The conditions that all must hold, as (path, operator, operand), of a query that compiles.

    `$and` is taken apart; other logical operators come whole, without a path.
    """
    for name, condition in query.items():
        if name == "$and":
            for part in condition:
                yield from conjuncts(part)
        elif name.startswith("$"):
            yield "", name, condition
        elif is_operators(condition):
            for op, operand in condition.items():
                yield name, op, operand
        else:
            yield name, "$eq", condition


def is_operators(condition: Any) -> bool:
    """Whether a condition on a field is made of operators rather than a value to be equal to."""
    return isinstance(condition, Mapping) and any(
        isinstance(key, str) and key.startswith("$") for key in condition
    )


@dataclass(frozen=True, slots=True)
class _Clause:
    """One operator on one field: a test of single values, and how lists and absence go with it."""

    test: ValueTest
    spreads: bool = True
    negated: bool = False

    def on_path(self, parts: tuple[str, ...]) -> RecordTest:
        if len(parts) == 1:
            return self._on_field(parts[0])
        found, negated = self._found, self.negated
        return lambda record: any(map(found, leaves(record, parts))) is not negated

    def _on_field(self, name: str) -> RecordTest:
        found, negated = self._found, self.negated
        return lambda record: found(record.get(name, MISSING)) is not negated

    def _found(self, value: Any) -> bool:
        if type(value) is list and self.spreads and any(map(self.test, value)):
            return True
        return self.test(value)

    def on_element(self) -> ValueTest:
        test, negated = self.test, self.negated
        return lambda value: test(value) is not negated


@dataclass(frozen=True, slots=True)
class _Group:
    """Several conditions on one field, all of which hold, or (negated) not all."""

    clauses: Sequence[_Clause | _Group]
    negated: bool = False

    def on_path(self, parts: tuple[str, ...]) -> RecordTest:
        return _all([clause.on_path(parts) for clause in self.clauses], negated=self.negated)

    def on_element(self) -> ValueTest:
        return _all([clause.on_element() for clause in self.clauses], negated=self.negated)


def _all(tests: Sequence[ValueTest], *, negated: bool = False) -> ValueTest:
    if len(tests) == 1 and not negated:
        return tests[0]

    def test_all(value: Any) -> bool:
        for test in tests:
            if not test(value):
                return negated
        return not negated

    return test_all


class _Compiler:
    """Compiles one query and counts what it is made of."""

    def __init__(self) -> None:
        self._clauses = 0

    def query(self, query: Any, where: str, depth: int) -> RecordTest:
        if not isinstance(query, Mapping):
            raise refused(f"A query is an object, not {type(query).__name__}", where)
        self._enter(where, depth)
        tests = []
        for name, condition in query.items():
            if not isinstance(name, str):
                raise refused(f"Field names are text, not {name!r:.80}", where)
            place = f"{where}.{name}" if where else name
            if name in _LOGICAL:
                tests.append(self._logical(name, condition, place, depth))
            elif name.startswith("$"):
                raise refused_operator(name, place)
            else:
                parts = split_path(name, place)
                tests.append(self._condition(condition, place, depth).on_path(parts))
        return _all(tests)

    def _enter(self, where: str, depth: int) -> None:
        self._clauses += 1
        if depth > MAX_QUERY_DEPTH:
            raise refused(f"A query nests at most {MAX_QUERY_DEPTH} levels", where)
        if self._clauses > MAX_CLAUSES:
            raise refused(f"A query has at most {MAX_CLAUSES} clauses", where)

    def _logical(self, name: str, parts: Any, where: str, depth: int) -> RecordTest:
        if not isinstance(parts, list | tuple) or not parts:
            raise refused(f"'{name}' takes a list of queries that is not empty", where)
        tests = [self.query(part, f"{where}[{i}]", depth + 1) for i, part in enumerate(parts)]
        if name == "$and":
            return _all(tests)
        wanted = name == "$or"
        return lambda record: any(test(record) for test in tests) is wanted

    def _condition(self, condition: Any, where: str, depth: int) -> _Clause | _Group:
        """The conditions on one field: operators, or a value to be equal to."""
        if not is_operators(condition):
            self._enter(where, depth)
            check_literal(condition, where)
            return _Clause(equals(condition))
        if "$options" in condition and "$regex" not in condition:
            raise refused("'$options' goes with '$regex'", where)
        clauses: list[_Clause | _Group] = []
        for name, operand in condition.items():
            self._enter(where, depth)
            if name == "$regex":
                test = searches(operand, condition.get("$options", ""), f"{where}.{name}")
                clauses.append(_Clause(test))
            elif name != "$options":
                clauses.append(self._operator(name, operand, f"{where}.{name}", depth))
        return clauses[0] if len(clauses) == 1 else _Group(clauses)

    def _operator(self, name: Any, operand: Any, where: str, depth: int) -> _Clause | _Group:
        if name in _SIMPLE:
            return _SIMPLE[name](operand, where)
        if name in COMPARISONS:
            return _Clause(compares(name, operand, where))
        if name == "$not":
            if not is_operators(operand):
                raise refused("'$not' takes an object of operators", where)
            return _Group((self._condition(operand, where, depth + 1),), negated=True)
        if name == "$elemMatch":
            return self._element(operand, where, depth + 1)
        if name == "$all":
            return self._every(operand, where, depth + 1)
        raise refused_operator(str(name), where)

    def _element(self, operand: Any, where: str, depth: int) -> _Clause:
        if is_operators(operand) and not any(name in _LOGICAL for name in operand):
            test = self._condition(operand, where, depth).on_element()
        else:
            test = _of_objects(self.query(operand, where, depth))
        return _Clause(lambda value: type(value) is list and any(map(test, value)), spreads=False)

    def _every(self, operand: Any, where: str, depth: int) -> _Clause | _Group:
        if not isinstance(operand, list | tuple):
            raise refused("'$all' takes a list", where)
        if not operand:
            return _Clause(lambda _: False)
        clauses = []
        for i, item in enumerate(operand):
            is_element = isinstance(item, Mapping) and list(item) == ["$elemMatch"]
            condition = item if is_element else {"$in": [item]}
            clauses.append(self._condition(condition, f"{where}[{i}]", depth))
        return _Group(clauses)


def _of_objects(test: RecordTest) -> ValueTest:
    return lambda value: isinstance(value, dict) and test(value)


def _equal(operand: Any, where: str) -> _Clause:
    check_literal(operand, where, may_name_operators=True)
    return _Clause(equals(operand))


def _unequal(operand: Any, where: str) -> _Clause:
    check_literal(operand, where, may_name_operators=True)
    return _Clause(equals(operand), negated=True)


def _exists(operand: Any, where: str) -> _Clause:
    if not isinstance(operand, bool | int):
        raise refused("'$exists' is true or false", where)
    return _Clause(lambda value: value is not MISSING, spreads=False, negated=not operand)


_SIMPLE: Final[Mapping[Any, Callable[[Any, str], _Clause]]] = {
    "$eq": _equal,
    "$ne": _unequal,
    "$in": lambda operand, where: _Clause(among(operand, where)),
    "$nin": lambda operand, where: _Clause(among(operand, where), negated=True),
    "$exists": _exists,
    "$size": lambda operand, where: _Clause(has_size(operand, where), spreads=False),
}

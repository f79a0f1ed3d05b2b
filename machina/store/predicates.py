"""Tests of single values, as the operators of a query make them, and the checks of operands."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from machina.store.base import QUERY_OPERATORS, QueryRefused
from machina.store.ordering import (
    BLOB,
    DATE,
    NOTHING,
    NUMBER,
    TEXT,
    TRUTH,
    rank,
    value_key,
)
from machina.store.paths import MISSING
from machina.store.regexes import compile_search
from machina.store.values import as_utc

ValueTest = Callable[[Any], bool]
MAX_LIST_OPERAND: Final = 10_000
MAX_LITERAL_DEPTH: Final = 100
COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_COMPARABLE: Final = (NUMBER, TEXT, TRUTH, DATE, BLOB)


def equals(operand: Any) -> ValueTest:
    """Whether a value is the operand: by type and value, objects field by field in order."""
    place = rank(operand)
    if place == NOTHING:
        return lambda value: value is None or value is MISSING
    if place == TRUTH:
        return lambda value: value is operand
    if place == NUMBER:
        return lambda value: value == operand and type(value) is not bool
    if place == TEXT:
        return lambda value: bool(value == operand)
    if place == DATE:
        moment = as_utc(operand)
        return lambda value: isinstance(value, datetime) and as_utc(value) == moment
    key = value_key(operand)
    return lambda value: rank(value) == place and value_key(value) == key


def among(operand: Any, where: str) -> ValueTest:
    """Whether a value is one of the operand's; null stands for absent too."""
    if not isinstance(operand, list | tuple | set | frozenset):
        raise refused("A list of values is needed", where)
    if len(operand) > MAX_LIST_OPERAND:
        raise refused(f"A list of at most {MAX_LIST_OPERAND} values is needed", where)
    for item in operand:
        check_literal(item, where)
    keys = {value_key(item) for item in operand}
    places = {place for place, _ in keys}
    return lambda value: rank(value) in places and value_key(value) in keys


def compares(name: str, operand: Any, where: str) -> ValueTest:
    """Whether a value of the operand's type lies on the right side of it."""
    check_literal(operand, where)
    compare, place = COMPARISONS[name], rank(operand)
    if place == NOTHING:
        return equals(None) if name in ("$gte", "$lte") else lambda _: False
    if place not in _COMPARABLE:
        raise refused(f"'{name}' takes a number, text, date, truth value or bytes", where)
    if place in (NUMBER, TEXT):
        return lambda value: rank(value) == place and compare(value, operand)
    key = value_key(operand)
    return lambda value: rank(value) == place and compare(value_key(value), key)


def searches(pattern: Any, options: Any, where: str) -> ValueTest:
    """Whether a text contains a regular expression."""
    if not isinstance(pattern, str) or not isinstance(options, str):
        raise refused("'$regex' and '$options' are texts", where)
    try:
        search = compile_search(pattern, options)
    except QueryRefused as error:
        raise refused(error.message.rstrip("."), where) from None
    return lambda value: isinstance(value, str) and search(value)


def has_size(operand: Any, where: str) -> ValueTest:
    """Whether a value is a list of so many elements."""
    if not isinstance(operand, int) or isinstance(operand, bool) or operand < 0:
        raise refused("'$size' is a number from 0", where)
    return lambda value: type(value) is list and len(value) == operand


def check_literal(
    value: Any, where: str, *, may_name_operators: bool = False, depth: int = 0
) -> None:
    """Refuses a value that no record can hold, and operators where a plain value belongs.

    Raises:
        QueryRefused: says what and where.
    """
    if rank(value) == 0:
        raise refused(f"No record holds a value of type {type(value).__name__}", where)
    if depth > MAX_LITERAL_DEPTH:
        raise refused(f"A value nests at most {MAX_LITERAL_DEPTH} levels", where)
    if isinstance(value, list | tuple):
        for item in value:
            check_literal(item, where, may_name_operators=may_name_operators, depth=depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or "\0" in key:
                raise refused(f"Field names are text without NUL, not {key!r:.80}", where)
            if key.startswith("$") and not may_name_operators:
                raise refused_operator(key, where)
            check_literal(item, where, may_name_operators=may_name_operators, depth=depth + 1)


def refused(message: str, where: str) -> QueryRefused:
    """The error for a part of a query; `where` is its path."""
    return QueryRefused(f"{message} (at '{where}')." if where else f"{message}.", field=where)


def refused_operator(name: str, where: str) -> QueryRefused:
    """The error for an operator that is unknown or out of place."""
    if name in QUERY_OPERATORS:
        return refused(f"The operator '{name}' cannot stand here", where)
    known = " ".join(sorted(QUERY_OPERATORS))
    return refused(f"The operator '{name:.40}' is not known; known are {known}", where)

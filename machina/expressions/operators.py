"""Operators with a price: each pays for its work and allows only types that it knows."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from datetime import date, datetime, timedelta
from types import NoneType
from typing import Any

from machina.errors import BudgetExceeded
from machina.expressions.budget import MAX_INTEGER_BITS, Budget
from machina.expressions.values import (
    MOMENTS,
    NESTING,
    NUMBERS,
    SEQUENCES,
    SETS,
    VIEWS,
    Stream,
    check_key,
    iterate,
    measure,
    step_through,
    type_name,
)

BinaryOperator = Callable[[Budget, Any, Any], Any]

_KEYS: type = type({}.keys())
_REPEATABLE = frozenset({str, list, tuple})
_TIMES = frozenset({datetime, date, timedelta})
_ORDERED = NUMBERS | MOMENTS | {str, list, tuple} | SETS | VIEWS
_CHEAP = NUMBERS | MOMENTS | {NoneType}
_REFERENCE = 8  # bytes


def _unsupported(symbol: str, left: Any, right: Any) -> TypeError:
    return TypeError(
        f"unsupported operand type(s) for {symbol}: '{type_name(left)}' and '{type_name(right)}'"
    )


def _pay_for_long(budget: Budget, left: Any, right: Any) -> None:
    """Long integers cost time that grows with the product of their lengths."""
    bits = [value.bit_length() for value in (left, right) if type(value) is int]
    if max(bits, default=0) > 64:
        budget.work(1 + (bits[0] * bits[-1] >> 12))


def add(budget: Budget, left: Any, right: Any) -> Any:
    """Adds numbers and moments, joins texts and lists."""
    kind, other = type(left), type(right)
    if kind in NUMBERS and other in NUMBERS:
        return left + right
    if kind is other and kind in _REPEATABLE:
        length = len(left) + len(right)
        budget.take(length if kind is str else _REFERENCE * length)
        return left + right
    if kind in _TIMES and other in _TIMES:
        return left + right
    raise _unsupported("+", left, right)


def subtract(budget: Budget, left: Any, right: Any) -> Any:
    """Subtracts numbers, moments and sets."""
    kind, other = type(left), type(right)
    if (kind in NUMBERS and other in NUMBERS) or (kind in _TIMES and other in _TIMES):
        return left - right
    if kind in SETS and other in SETS:
        _pay_for_set(budget, left, right)
        return left - right
    raise _unsupported("-", left, right)


def _pay_for_set(budget: Budget, left: Any, right: Any) -> None:
    """Looking up every member of one set in the other, at the worst price of its members."""
    budget.take(64 * len(left))
    for member in iterate(budget, left):
        check_key(budget, member, len(right))


def multiply(budget: Budget, left: Any, right: Any) -> Any:
    """Multiplies numbers and durations, repeats texts and lists."""
    kind, other = type(left), type(right)
    if kind in NUMBERS and other in NUMBERS:
        if kind is int and other is int:
            bits = left.bit_length() + right.bit_length()
            if bits > MAX_INTEGER_BITS:
                raise BudgetExceeded(f"a number gets longer than {MAX_INTEGER_BITS:,} bits")
            if bits > 128:
                _pay_for_long(budget, left, right)
        return left * right
    if kind in _REPEATABLE and other in (int, bool):
        return _repeat(budget, left, right)
    if other in _REPEATABLE and kind in (int, bool):
        return _repeat(budget, right, left)
    if (kind is timedelta and other in NUMBERS) or (other is timedelta and kind in NUMBERS):
        return left * right
    raise _unsupported("*", left, right)


def _repeat(budget: Budget, value: Any, times: int) -> Any:
    size = len(value) * max(0, times)
    budget.take(size if type(value) is str else _REFERENCE * size)
    return value * times


def divide(budget: Budget, left: Any, right: Any) -> Any:
    """Divides numbers and durations."""
    return _divide(budget, left, right, "/", operator.truediv)


def floor_divide(budget: Budget, left: Any, right: Any) -> Any:
    """Divides numbers and durations, rounding down."""
    return _divide(budget, left, right, "//", operator.floordiv)


def _divide(
    budget: Budget, left: Any, right: Any, symbol: str, operation: Callable[[Any, Any], Any]
) -> Any:
    kind, other = type(left), type(right)
    if kind in NUMBERS and other in NUMBERS:
        _pay_for_long(budget, left, right)
        return operation(left, right)
    if kind is timedelta and (other is timedelta or other in NUMBERS):
        return operation(left, right)
    raise _unsupported(symbol, left, right)


def modulo(budget: Budget, left: Any, right: Any) -> Any:
    """The remainder of numbers. Formatting text with `%` is not part of the language."""
    if type(left) not in NUMBERS or type(right) not in NUMBERS:
        raise _unsupported("%", left, right)
    _pay_for_long(budget, left, right)
    return left % right


def negate(value: Any) -> Any:
    """Minus a number or a duration."""
    if type(value) in NUMBERS or type(value) is timedelta:
        return -value
    raise TypeError(f"bad operand type for unary -: '{type_name(value)}'")


def posit(value: Any) -> Any:
    """Plus a number or a duration."""
    if type(value) in NUMBERS or type(value) is timedelta:
        return +value
    raise TypeError(f"bad operand type for unary +: '{type_name(value)}'")


def equal(budget: Budget, left: Any, right: Any) -> bool:
    """Compares by value; nested values are walked through and paid for first."""
    kind, other = type(left), type(right)
    if kind in _CHEAP or other in _CHEAP:
        return bool(left == right)
    if kind is str or other is str:
        if kind is other:
            budget.scan(len(left))
        return bool(left == right)
    if kind in NESTING and other in NESTING:
        measure(budget, left)
        measure(budget, right)
    return bool(left == right)


def not_equal(budget: Budget, left: Any, right: Any) -> bool:
    """The opposite of `equal`."""
    return not equal(budget, left, right)


def _ordering(symbol: str, operation: Callable[[Any, Any], Any]) -> BinaryOperator:
    def compare(budget: Budget, left: Any, right: Any) -> Any:
        kind, other = type(left), type(right)
        if kind in NUMBERS and other in NUMBERS:
            return operation(left, right)
        if kind not in _ORDERED or other not in _ORDERED:
            raise TypeError(
                f"'{symbol}' not supported between instances of"
                f" '{type_name(left)}' and '{type_name(right)}'"
            )
        measure(budget, left)
        measure(budget, right)
        return operation(left, right)

    return compare


def contains(budget: Budget, item: Any, container: Any) -> bool:
    """`item in container`, with the price of looking at every part where that is needed."""
    kind = type(container)
    if kind is str:
        if type(item) is str:
            budget.scan(len(container))
        return item in container
    if kind is dict or kind in SETS or kind is _KEYS:
        check_key(budget, item, len(container))
        return item in container
    if kind is range and type(item) in (int, bool):
        return item in container
    if kind is Stream:
        parts = step_through(budget, container)
        return any(item is part or equal(budget, item, part) for part in parts)
    cost = 1 + (len(item) >> 8 if type(item) is str else 0)
    iterate(budget, container, cost)
    if type(item) in NESTING:
        measure(budget, item)
        measure(budget, container)
    return item in container


def not_contains(budget: Budget, item: Any, container: Any) -> bool:
    """The opposite of `contains`."""
    return not contains(budget, item, container)


def item_of(budget: Budget, container: Any, key: Any) -> Any:
    """`container[key]` for dicts, lists, tuples, texts and ranges; a slice is paid for."""
    kind = type(container)
    if kind is dict:
        check_key(budget, key, len(container))
        return container[key]
    if kind not in SEQUENCES:
        raise TypeError(f"'{type_name(container)}' object is not subscriptable")
    if type(key) is slice:
        length = len(range(*key.indices(len(container))))
        budget.take(length if kind is str else _REFERENCE * length)
    return container[key]


BINARY: dict[type[ast.operator], BinaryOperator] = {
    ast.Add: add,
    ast.Sub: subtract,
    ast.Mult: multiply,
    ast.Div: divide,
    ast.FloorDiv: floor_divide,
    ast.Mod: modulo,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: negate,
    ast.UAdd: posit,
}
COMPARISONS: dict[type[ast.cmpop], BinaryOperator] = {
    ast.Eq: equal,
    ast.NotEq: not_equal,
    ast.Lt: _ordering("<", operator.lt),
    ast.LtE: _ordering("<=", operator.le),
    ast.Gt: _ordering(">", operator.gt),
    ast.GtE: _ordering(">=", operator.ge),
    ast.Is: lambda _, left, right: left is right,
    ast.IsNot: lambda _, left, right: left is not right,
    ast.In: contains,
    ast.NotIn: not_contains,
}

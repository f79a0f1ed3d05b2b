"""The kinds of values an expression may work with, told apart by their exact type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import NoneType
from typing import Any, cast
from uuid import UUID

from machina.errors import BudgetExceeded
from machina.expressions.budget import Budget

NUMBERS = frozenset({int, float, bool})
SCALARS = frozenset({str, int, float, bool, NoneType})
MOMENTS = frozenset({datetime, date, time, timedelta, timezone})
VIEWS = frozenset({type({}.keys()), type({}.values()), type({}.items())})
SETS = frozenset({set, frozenset})
SEQUENCES = frozenset({list, tuple, str, range})
SIZED = SEQUENCES | SETS | VIEWS | {dict, bytes}
NESTING = SIZED - {str, bytes, range}  # what holds other values

_NUMBER, _REFERENCE = 32, 8  # bytes
MAX_NESTING = 200  # levels of lists and dicts that are walked
MAX_STREAMS = 32  # iterators over iterators
_SIMPLE_INTEGER = 2**60  # a larger one may share its hash with another
_SIMPLE_KEYS = (SCALARS | MOMENTS) - {int, timedelta}


class Stream:
    """An iterator made by an expression: `zip(…)`, `(… for …)`. It never leaves the evaluation."""

    __slots__ = ("depth", "iterator")
    depth: int

    def __init__(self, budget: Budget, iterator: Iterator[Any], *sources: Any) -> None:
        self.depth = 1 + max(
            (source.depth for source in sources if type(source) is Stream), default=0
        )
        if self.depth > MAX_STREAMS:
            raise BudgetExceeded(f"it nests more than {MAX_STREAMS} iterators")
        budget.take(512)
        self.iterator = iterator


class Builtin:
    """A function, type or namespace of the language: `len`, `str`, `datetime`, `json`.

    `type` is what `isinstance` compares with; `members` is what may follow a dot.
    """

    __slots__ = ("call", "members", "name", "type")

    def __init__(
        self,
        name: str,
        call: Callable[..., Any] | None,
        *,
        type: type | None = None,
        members: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.call = call
        self.type = type
        self.members = members or {}


class Function:
    """A lambda with the frame it was made in."""

    __slots__ = ("body", "cost", "defaults", "frame", "names", "weight")

    def __init__(
        self,
        body: Callable[[list[Any]], Any],
        frame: list[Any],
        names: tuple[str, ...],
        defaults: tuple[Any, ...],
        *,
        cost: int,
        weight: int,
    ) -> None:
        self.body = body
        self.frame = frame
        self.names = names
        self.defaults = defaults
        self.cost = cost
        self.weight = weight

    def call(self, budget: Budget, /, *values: Any, **named: Any) -> Any:
        """Evaluates the body in a frame of its own, one call deeper."""
        if named or len(values) != len(self.names):
            values = self._bind(values, named)
        budget.work(self.cost)
        budget.take(self.weight)
        budget.enter()
        try:
            return self.body([self.frame[0], budget, self.frame, *values])
        finally:
            budget.leave()

    def _bind(self, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        names = self.names
        if len(values) > len(names):
            raise TypeError(f"lambda takes {len(names)} arguments but {len(values)} were given")
        defaults = dict(zip(reversed(names), reversed(self.defaults), strict=False))
        bound = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name not in names or name in bound:
                raise TypeError(f"lambda got an unexpected argument {name!r}")
            bound[name] = value
        missing = [name for name in names if name not in bound and name not in defaults]
        if missing:
            raise TypeError(f"lambda is missing the arguments {', '.join(missing)}")
        return tuple(bound.get(name, defaults.get(name)) for name in names)


_INTERNAL_NAMES: dict[type, str] = {
    Stream: "iterator",
    Builtin: "function",
    Function: "function",
}
INTERNAL = frozenset(_INTERNAL_NAMES)


def type_name(value: Any) -> str:
    """The name of a value's type as error messages give it."""
    kind = type(value)
    return _INTERNAL_NAMES.get(kind) or kind.__name__


def invoke(budget: Budget, target: Any, *values: Any, **named: Any) -> Any:
    """Calls a lambda or a function of the language. Nothing else can be called."""
    kind = type(target)
    call = target.call if kind is Function or kind is Builtin else None
    if call is None:
        raise TypeError(f"'{type_name(target)}' object is not callable")
    return call(budget, *values, **named)


def iterate(budget: Budget, value: Any, cost: int = 1) -> Iterable[Any]:
    """Iterates over a value, and pays `cost` steps for each item: in advance where it can."""
    kind = type(value)
    if kind in SIZED:
        budget.work(len(value) * cost)
        if kind is range:
            budget.take(len(value) * _NUMBER)  # its numbers are made on the way
        return cast(Iterable[Any], value)
    if kind is Stream:
        return _metered(budget, value.iterator, cost)
    raise TypeError(f"'{type_name(value)}' object is not iterable")


def collect(budget: Budget, value: Any) -> list[Any]:
    """A new list of the items of a value, paid for."""
    if type(value) in SIZED:
        budget.take(_REFERENCE * len(value) + 56)
        return list(iterate(budget, value))
    items: list[Any] = []
    for item in iterate(budget, value):
        budget.take(_REFERENCE)
        items.append(item)
    return items


def step_through(budget: Budget, value: Any, cost: int = 1) -> Iterator[Any]:
    """Iterates like `iterate`, but pays for each item when it is asked for."""
    kind = type(value)
    if kind in SIZED:
        return _metered(budget, iter(value), cost)
    if kind is Stream:
        return _metered(budget, value.iterator, cost)
    raise TypeError(f"'{type_name(value)}' object is not iterable")


def _metered(budget: Budget, iterator: Iterator[Any], cost: int) -> Iterator[Any]:
    for item in iterator:
        budget.work(cost)
        yield item


def check_key(budget: Budget, key: Any, entries: int) -> None:
    """Pays for a look-up in a dict or set of that many entries.

    Texts and small numbers find their place at once. Tuples and very large numbers can be
    chosen so that all have one hash; each look-up may then have to pass all the others.
    """
    kind = type(key)
    if kind in _SIMPLE_KEYS:
        return
    if kind is int and -_SIMPLE_INTEGER < key < _SIMPLE_INTEGER:
        return
    if kind in NESTING:
        measure(budget, key)
    budget.work(1 + (entries >> 2))


def measure(budget: Budget, value: Any, *, for_text: bool = False) -> int:
    """Walks through a value, pays for each part, and says how long its text may become.

    Parts that are shared count each time, as comparing, hashing and writing out visit them
    each time. With `for_text`, values that have no text of their own raise TypeError.
    """
    return _measure(budget, value, for_text, 0)


def _measure(budget: Budget, value: Any, for_text: bool, depth: int) -> int:
    kind = type(value)
    if kind is str:
        budget.scan(len(value))
        return 4 * len(value) + 2  # room for escapes
    if kind is int:
        return cast(int, value.bit_length()) // 3 + 2
    if kind not in NESTING:
        return _measure_leaf(value, for_text)
    if depth > MAX_NESTING:
        raise BudgetExceeded(f"a value is nested more than {MAX_NESTING} levels deep")
    budget.work(len(value) + 1)
    total = 2 + 2 * len(value)
    for part in value:
        total += _measure(budget, part, for_text, depth + 1)
    if kind is dict:
        for part in value.values():
            total += _measure(budget, part, for_text, depth + 1)
    return total


def _measure_leaf(value: Any, for_text: bool) -> int:
    kind = type(value)
    if kind is bytes:
        return 4 * len(value) + 3
    if for_text and kind not in _WITH_TEXT:
        raise TypeError(f"'{type_name(value)}' object has no text")
    return 64


_WITH_TEXT = SCALARS | MOMENTS | {range, Decimal, UUID}

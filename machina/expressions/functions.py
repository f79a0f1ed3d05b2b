"""The functions of the language: a table by name, each within the budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from math import log2
from types import NoneType
from typing import Any

from machina.errors import BudgetExceeded
from machina.expressions.budget import Budget
from machina.expressions.markup import parse_page
from machina.expressions.moments import DATETIME, TIMEDELTA, import_module
from machina.expressions.operators import add
from machina.expressions.texts import representation_of, text_of
from machina.expressions.values import (
    MOMENTS,
    NUMBERS,
    SETS,
    SIZED,
    Builtin,
    Stream,
    check_key,
    collect,
    invoke,
    iterate,
    measure,
    step_through,
    type_name,
)

_REFERENCE = 8  # bytes
_ENTRY = 100  # bytes of an entry in a dict or set
_MAX_DIGITS = 4_300  # of a number in a text, as in Python
_MAX_ROUNDING = 400
_MAX_JSON = 2_000_000  # characters
_SORTABLE = NUMBERS | MOMENTS | SETS | {str, list, tuple, NoneType, dict}
_MISSING = object()


def _len(_: Budget, value: Any, /) -> int:
    if type(value) not in SIZED:
        raise TypeError(f"object of type '{type_name(value)}' has no len()")
    return len(value)


def _str(budget: Budget, value: Any = "", /) -> str:
    return text_of(budget, value)


def _int(budget: Budget, value: Any = 0, /, *base: Any) -> int:
    if type(value) is str:
        if len(value) > _MAX_DIGITS:
            raise BudgetExceeded(f"a number has more than {_MAX_DIGITS:,} digits")
        budget.work(1 + len(value))
    elif type(value) not in NUMBERS:
        raise TypeError(f"int() argument must be a text or a number, not '{type_name(value)}'")
    return int(value, *base)


def _float(budget: Budget, value: Any = 0.0, /) -> float:
    if type(value) is str:
        budget.work(1 + len(value))
    elif type(value) not in NUMBERS:
        raise TypeError(f"float() argument must be a text or a number, not '{type_name(value)}'")
    return float(value)


def _bool(_: Budget, value: Any = False, /) -> bool:
    return bool(value)


def _abs(_: Budget, value: Any, /) -> Any:
    if type(value) not in NUMBERS and type(value) is not timedelta:
        raise TypeError(f"bad operand type for abs(): '{type_name(value)}'")
    return abs(value)


def _round(_: Budget, number: Any, ndigits: Any = None) -> Any:
    if type(number) not in NUMBERS:
        raise TypeError(f"type {type_name(number)} doesn't define __round__ method")
    if type(ndigits) is int and abs(ndigits) > _MAX_ROUNDING:
        raise BudgetExceeded(f"round() to more than {_MAX_ROUNDING} digits")
    return round(number, ndigits)


def _range(_: Budget, /, *bounds: Any) -> range:
    return range(*bounds)


def _isinstance(_: Budget, value: Any, kinds: Any, /) -> bool:
    wanted = kinds if type(kinds) is tuple else (kinds,)
    types = [kind.type if type(kind) is Builtin else None for kind in wanted]
    if None in types:
        raise TypeError("isinstance() arg 2 must be a type or a tuple of types")
    return isinstance(value, tuple(kind for kind in types if kind is not None))


def _next(budget: Budget, stream: Any, /, *default: Any) -> Any:
    if type(stream) is not Stream:
        raise TypeError(f"'{type_name(stream)}' object is not an iterator")
    budget.work(1)
    return next(stream.iterator, *default)


def _any(budget: Budget, items: Any, /) -> bool:
    return any(step_through(budget, items))


def _all(budget: Budget, items: Any, /) -> bool:
    return all(step_through(budget, items))


def _list(budget: Budget, items: Any = (), /) -> list[Any]:
    return collect(budget, items)


def _tuple(budget: Budget, items: Any = (), /) -> tuple[Any, ...]:
    return tuple(collect(budget, items))


def _set(budget: Budget, items: Any = (), /) -> set[Any]:
    members: set[Any] = set()
    for item in iterate(budget, items):
        check_key(budget, item, len(members))
        budget.take(_ENTRY)
        members.add(item)
    return members


def _dict(budget: Budget, items: Any = (), /, **named: Any) -> dict[Any, Any]:
    if type(items) is dict:
        entries = items
        budget.work(len(items))
    else:
        entries = {}
        for pair in iterate(budget, items, 2):
            key, value = iterate(budget, pair)
            check_key(budget, key, len(entries))
            budget.take(_ENTRY)
            entries[key] = value
    budget.take(_ENTRY * (len(entries) + len(named)) + 64)
    return {**entries, **named}


def _sum(budget: Budget, items: Any, /, start: Any = 0) -> Any:
    if type(start) is str:
        raise TypeError("sum() can't sum strings")
    total = start
    for item in iterate(budget, items):
        total = add(budget, total, item)
    return total


def _keys_for(budget: Budget, items: list[Any], key: Any) -> list[Any]:
    """What to order items by; known types only, and comparing them n log n times paid for."""
    keys = items if key is None else [invoke(budget, key, item) for item in items]
    rounds = 1 + int(log2(len(items) + 1))
    for one in keys:
        kind = type(one)
        if kind not in _SORTABLE and len(keys) > 1:
            raise TypeError(f"'<' not supported between instances of '{type_name(one)}'")
        if kind not in NUMBERS:
            length = len(one) >> 8 if kind is str else measure(budget, one) >> 5
            budget.work(rounds * length)
    budget.work(rounds * len(keys))
    return keys


def _sorted(budget: Budget, items: Any, /, *, key: Any = None, reverse: Any = False) -> list[Any]:
    copy = collect(budget, items)
    keys = _keys_for(budget, copy, key)
    budget.take(2 * _REFERENCE * len(copy))
    order = sorted(range(len(copy)), key=keys.__getitem__, reverse=bool(reverse))
    return [copy[position] for position in order]


def _extreme(name: str, native: Callable[..., int]) -> Callable[..., Any]:
    def function(
        budget: Budget, first: Any, /, *others: Any, key: Any = None, default: Any = _MISSING
    ) -> Any:
        items = [first, *others] if others else collect(budget, first)
        if not items:
            if default is _MISSING:
                raise ValueError(f"{name}() arg is an empty sequence")
            return default
        keys = _keys_for(budget, items, key)
        return items[native(range(len(items)), key=keys.__getitem__)]

    return function


def _enumerate(budget: Budget, items: Any, /, start: Any = 0) -> Stream:
    numbered = enumerate(step_through(budget, items), start)
    return Stream(budget, _paid_tuples(budget, numbered, 2), items)


def _zip(budget: Budget, /, *sources: Any) -> Stream:
    columns = [step_through(budget, source) for source in sources]
    rows = zip(*columns, strict=False)
    return Stream(budget, _paid_tuples(budget, rows, len(columns)), *sources)


def _paid_tuples(budget: Budget, tuples: Iterator[Any], width: int) -> Iterator[Any]:
    for one in tuples:
        budget.take(72 + (_REFERENCE + 32) * width)  # with a number in each place
        yield one


def _map(budget: Budget, function: Any, /, *sources: Any) -> Stream:
    if not sources:
        raise TypeError("map() must have at least two arguments.")
    columns = [step_through(budget, source) for source in sources]

    def mapped() -> Iterator[Any]:
        for values in zip(*columns, strict=False):
            yield invoke(budget, function, *values)

    return Stream(budget, mapped(), *sources)


def _filter(budget: Budget, function: Any, items: Any, /) -> Stream:
    def kept() -> Iterator[Any]:
        for item in candidates:
            if item if function is None else invoke(budget, function, item):
                yield item

    candidates = step_through(budget, items)
    return Stream(budget, kept(), items)


def _reversed(budget: Budget, items: Any, /) -> Stream:
    if type(items) not in SIZED or type(items) in SETS:
        raise TypeError(f"'{type_name(items)}' object is not reversible")
    return Stream(budget, reversed(items))


def _loads(budget: Budget, text: Any, /) -> Any:
    if type(text) is not str:
        raise TypeError(f"the JSON object must be str, not {type_name(text)}")
    if len(text) > _MAX_JSON:
        raise BudgetExceeded(f"a JSON text is longer than {_MAX_JSON:,} characters")
    containers, values = text.count("[") + text.count("{"), text.count(",")
    budget.take(2 * len(text) + _ENTRY * containers + 32 * values)
    budget.work(containers + values)
    return json.loads(text)


FUNCTIONS: dict[str, Builtin] = {
    "len": Builtin("len", _len),
    "str": Builtin("str", _str, type=str),
    "int": Builtin("int", _int, type=int),
    "float": Builtin("float", _float, type=float),
    "bool": Builtin("bool", _bool, type=bool),
    "list": Builtin("list", _list, type=list),
    "tuple": Builtin("tuple", _tuple, type=tuple),
    "set": Builtin("set", _set, type=set),
    "dict": Builtin("dict", _dict, type=dict),
    "range": Builtin("range", _range, type=range),
    "datetime": DATETIME,
    "timedelta": TIMEDELTA,
    "json": Builtin("json", None, members={"loads": Builtin("loads", _loads)}),
    "bs4": Builtin("bs4", parse_page),
    "__import__": Builtin("__import__", import_module),
    "repr": Builtin("repr", representation_of),
    "abs": Builtin("abs", _abs),
    "round": Builtin("round", _round),
    "isinstance": Builtin("isinstance", _isinstance),
    "next": Builtin("next", _next),
    "any": Builtin("any", _any),
    "all": Builtin("all", _all),
    "sum": Builtin("sum", _sum),
    "sorted": Builtin("sorted", _sorted),
    "min": Builtin("min", _extreme("min", min)),
    "max": Builtin("max", _extreme("max", max)),
    "enumerate": Builtin("enumerate", _enumerate),
    "zip": Builtin("zip", _zip),
    "map": Builtin("map", _map),
    "filter": Builtin("filter", _filter),
    "reversed": Builtin("reversed", _reversed),
}

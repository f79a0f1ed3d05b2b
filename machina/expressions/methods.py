"""The methods and attributes of values: a table by exact type, so no subclass gets in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

from machina.expressions.budget import Budget
from machina.expressions.markup import Page, page_text
from machina.expressions.operators import equal, subtract
from machina.expressions.texts import date_text
from machina.expressions.values import Builtin, check_key, collect, iterate, measure, type_name

Method = Callable[..., Any]

_REFERENCE = 8  # bytes
_PIECE = 56  # bytes of a short text
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def method_of(value: Any, name: str) -> Method:
    """The method of a value, to be called with (budget, value, …). Raises AttributeError."""
    method = METHODS.get(type(value), _NONE).get(name)
    if method is None:
        raise AttributeError(f"'{type_name(value)}' object has no attribute '{name}'")
    return method


def attribute_of(value: Any, name: str) -> Any:
    """What `value.name` gives without a call: a part of a moment, a member of a namespace."""
    kind = type(value)
    if kind is Builtin and name in value.members:
        return value.members[name]
    if name in ATTRIBUTES.get(kind, ()):
        return getattr(value, name)
    raise AttributeError(f"'{type_name(value)}' object has no attribute '{name}'")


def _expect(kind: type, *values: Any) -> None:
    for value in values:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, got '{type_name(value)}'")


def _recased(name: str) -> Method:
    """A method that gives the text in another case, up to three times as long."""
    native: Callable[[str], str] = getattr(str, name)

    def method(budget: Budget, text: str, /) -> str:
        budget.take(3 * len(text))
        return native(text)

    return method


def _tested(name: str) -> Method:
    """A method that answers a question about all characters of the text."""
    native: Callable[[str], bool] = getattr(str, name)

    def method(budget: Budget, text: str, /) -> bool:
        budget.scan(len(text))
        return native(text)

    return method


def _stripped(name: str) -> Method:
    native: Callable[[str, str | None], str] = getattr(str, name)

    def method(budget: Budget, text: str, chars: Any = None, /) -> str:
        if chars is not None:
            _expect(str, chars)
            budget.scan(len(text) * len(chars))  # every character is looked up in `chars`
        budget.take(len(text))
        return native(text, chars)

    return method


def _searched(name: str) -> Method:
    """A method that looks for a text, or for its start or end."""
    native: Callable[..., Any] = getattr(str, name)

    def method(budget: Budget, text: str, part: Any, /, *bounds: Any) -> Any:
        budget.scan(len(text))
        if type(part) is tuple:
            budget.work(len(part))
        return native(text, part, *bounds)

    return method


def _without(name: str) -> Method:
    native: Callable[[str, str], str] = getattr(str, name)

    def method(budget: Budget, text: str, part: Any, /) -> str:
        budget.take(len(text))
        return native(text, part)

    return method


def _join(budget: Budget, separator: str, parts: Any, /) -> str:
    texts = collect(budget, parts)
    for position, text in enumerate(texts):
        if type(text) is not str:
            raise TypeError(
                f"sequence item {position}: expected str instance, {type_name(text)} found"
            )
    budget.take(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(budget: Budget, text: str, old: Any, new: Any, count: Any = -1, /) -> str:
    _expect(str, old, new)
    found = text.count(old) if old else len(text) + 1
    if type(count) is int and 0 <= count < found:
        found = count
    budget.scan(len(text))
    budget.take(len(text) + found * max(0, len(new) - len(old)))
    return text.replace(old, new, count)


def _split(budget: Budget, text: str, sep: Any = None, maxsplit: Any = -1) -> list[str]:
    if sep is not None:
        _expect(str, sep)
    _expect(int, maxsplit)
    budget.take(len(text))
    # One piece more than can be paid for: enough to see that there are too many.
    bound = max(0, budget.size_left // _PIECE) + 1
    pieces = text.split(sep, bound if maxsplit < 0 else min(maxsplit, bound))
    budget.take(_PIECE * len(pieces))
    return pieces


def _splitlines(budget: Budget, text: str, keepends: Any = False) -> list[str]:
    lines = 1 + sum(text.count(end) for end in _LINE_ENDS)
    budget.take(len(text) + _PIECE * lines)
    return text.splitlines(bool(keepends))


def _partition(budget: Budget, text: str, separator: Any, /) -> tuple[str, str, str]:
    budget.take(len(text))
    return text.partition(separator)


def _dict_get(budget: Budget, mapping: dict[Any, Any], key: Any, default: Any = None, /) -> Any:
    check_key(budget, key, len(mapping))
    return mapping.get(key, default)


def _count(budget: Budget, items: Any, wanted: Any, /) -> int:
    return sum(
        1 for item in iterate(budget, items) if item is wanted or equal(budget, item, wanted)
    )


def _index(budget: Budget, items: Any, wanted: Any, /, *bounds: Any) -> int:
    measure(budget, wanted)
    measure(budget, items)
    position: int = items.index(wanted, *bounds)
    return position


def _native(kind: type, name: str) -> Method:
    """A method of a moment: small work on small values, so Python's own does."""
    native: Callable[..., Any] = getattr(kind, name)

    def method(budget: Budget, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget.take(64)
        return native(value, *args, **kwargs)

    return method


def _each(make: Callable[[str], Method], names: str) -> dict[str, Method]:
    return {name: make(name) for name in names.split()}


def _natives(kind: type, names: str) -> dict[str, Method]:
    return _each(partial(_native, kind), names)


_NONE: dict[str, Method] = {}
_TEXT_METHODS: dict[str, Method] = {
    "join": _join,
    "replace": _replace,
    "split": _split,
    "splitlines": _splitlines,
    "partition": _partition,
    **_each(_recased, "lower upper title capitalize"),
    **_each(_tested, "isdigit isalpha isalnum isspace"),
    **_each(_stripped, "strip lstrip rstrip"),
    **_each(_searched, "startswith endswith find index count"),
    **_each(_without, "removeprefix removesuffix"),
}
METHODS: dict[type, dict[str, Method]] = {
    str: _TEXT_METHODS,
    dict: {
        "get": _dict_get,
        "keys": lambda _, mapping, /: mapping.keys(),
        "values": lambda _, mapping, /: mapping.values(),
        "items": lambda _, mapping, /: mapping.items(),
    },
    list: {"count": _count, "index": _index},
    tuple: {"count": _count, "index": _index},
    datetime: {"strftime": date_text, "__sub__": subtract}
    | _natives(datetime, "isoformat timestamp replace date time weekday isoweekday"),
    date: {"strftime": date_text, "__sub__": subtract}
    | _natives(date, "isoformat replace weekday isoweekday"),
    timedelta: {"__sub__": subtract} | _natives(timedelta, "total_seconds"),
    Page: {"get_text": page_text},
}

_DATE_PARTS = ("year", "month", "day")
ATTRIBUTES: dict[type, frozenset[str]] = {
    datetime: frozenset((*_DATE_PARTS, "hour", "minute", "second", "microsecond", "tzinfo")),
    date: frozenset(_DATE_PARTS),
    timedelta: frozenset(("days", "seconds", "microseconds")),
}

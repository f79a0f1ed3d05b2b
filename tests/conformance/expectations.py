"""Compares what a case expects with what was seen: exact, but for what no author can know.

An expected text `<any>`, `<id>`, `<date>` or `<text PATTERN>` stands for anything, an id, an ISO
date, or a text that the regular expression is found in. Numbers and booleans are not mixed up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_WILD = re.compile(r"<(any|id|date|text (?P<pattern>.*))>\Z", re.DOTALL)


def assert_same(seen: Any, expected: Any, where: str) -> None:
    """Fails the test unless both are the same, the keys of dictionaries in any order."""
    if isinstance(expected, Mapping) and isinstance(seen, Mapping):
        assert seen.keys() == expected.keys(), (
            f"{where}: {sorted(seen)} instead of {sorted(expected)}: {seen}"
        )
        assert_has(seen, expected, where, exact=True)
    else:
        _assert_value(seen, expected, where, exact=True)


def assert_has(
    seen: Mapping[str, Any], expected: Mapping[str, Any], where: str, *, exact: bool = False
) -> None:
    """Fails the test unless everything expected is seen; more may be there unless `exact`."""
    for key, value in expected.items():
        assert key in seen, f"{where}: no {key!r} in {dict(seen)}"
        inner = f"{where}.{key}"
        if isinstance(value, Mapping) and isinstance(seen[key], Mapping) and not exact:
            assert_has(seen[key], value, inner)
        elif exact:
            assert_same(seen[key], value, inner)
        else:
            _assert_value(seen[key], value, inner, exact=False)


def assert_items(seen: Sequence[Any], expected: Sequence[Any], where: str) -> None:
    """Fails the test unless there are as many, and each has what is expected of it."""
    assert len(seen) == len(expected), f"{where}: {len(seen)} instead of {len(expected)}: {seen}"
    for number, (one, wanted) in enumerate(zip(seen, expected, strict=True)):
        assert_has(one, wanted, f"{where}[{number}]")


def _assert_value(seen: Any, expected: Any, where: str, *, exact: bool) -> None:
    wild = _WILD.match(expected) if isinstance(expected, str) else None
    if wild is not None:
        assert _fits(seen, wild), f"{where}: {seen!r} is not {expected}"
    elif isinstance(expected, list) and isinstance(seen, list):
        assert len(seen) == len(expected), f"{where}: {seen!r} instead of {expected!r}"
        for number, (one, wanted) in enumerate(zip(seen, expected, strict=True)):
            if not exact and isinstance(wanted, Mapping) and isinstance(one, Mapping):
                assert_has(one, wanted, f"{where}[{number}]")
            else:
                assert_same(one, wanted, f"{where}[{number}]")
    else:
        same = seen == expected and type(seen) is type(expected)
        assert same, f"{where}: {seen!r} instead of {expected!r}"


def _fits(seen: Any, wild: re.Match[str]) -> bool:
    kind = wild[1]
    if kind == "any":
        return True
    if not isinstance(seen, str):
        return kind == "date" and isinstance(seen, datetime)
    if kind == "id":
        return re.fullmatch("[0-9a-f]{24}", seen) is not None
    if kind == "date":
        return re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", seen) is not None
    return re.search(wild["pattern"], seen, re.DOTALL) is not None

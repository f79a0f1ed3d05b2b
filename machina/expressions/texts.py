"""Turning values into text: `str`, `repr` and the fields of f-strings, within the budget."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

from machina.errors import BudgetExceeded
from machina.expressions.budget import Budget
from machina.expressions.values import NUMBERS, measure, type_name

MAX_FORMAT_WIDTH = 1_000
MAX_FORMAT_LENGTH = 100
_DATES = frozenset({datetime, date, time})
_DATE_FLAGS = ("-", "_", "0", "^", "#")


def text_of(budget: Budget, value: Any) -> str:
    """`str(value)` for plain data. Raises TypeError for what has no text of its own."""
    if type(value) is str:
        return value
    budget.take(measure(budget, value, for_text=True))
    return str(value)


def representation_of(budget: Budget, value: Any) -> str:
    """`repr(value)` for plain data. Raises TypeError for what has no text of its own."""
    budget.take(measure(budget, value, for_text=True))
    return repr(value)


def formatted(budget: Budget, value: Any, spec: str) -> str:
    """`format(value, spec)` with bounded numbers in the spec; for numbers, texts and dates."""
    if not spec:
        return text_of(budget, value)
    if len(spec) > MAX_FORMAT_LENGTH:
        raise BudgetExceeded(f"a format is longer than {MAX_FORMAT_LENGTH} characters")
    if type(value) in _DATES:
        return date_text(budget, value, spec)
    if type(value) is not str and type(value) not in NUMBERS:
        raise TypeError(f"unsupported format string passed to {type_name(value)}.__format__")
    _check_widths(spec)
    budget.take(measure(budget, value) + 2 * MAX_FORMAT_WIDTH)
    return format(value, spec)


def date_text(budget: Budget, value: Any, pattern: str) -> str:
    """`value.strftime(pattern)`; the C library's widths (`%99999d`) are not allowed."""
    if type(pattern) is not str:
        raise TypeError("strftime() needs a text")
    if len(pattern) > MAX_FORMAT_LENGTH:
        raise BudgetExceeded(f"a format is longer than {MAX_FORMAT_LENGTH} characters")
    for directive in pattern.replace("%%", "").split("%")[1:]:
        letter = directive[1:2] if directive.startswith(_DATE_FLAGS) else directive[:1]
        if not letter.isalpha():
            raise ValueError("after % a date format may have one flag and a letter")
    budget.take(16 * len(pattern))
    return str(value.strftime(pattern))


def _check_widths(spec: str) -> None:
    number = ""
    for char in f"{spec} ":
        if char.isdigit():
            number += char
        elif number:
            if len(number) > 4 or int(number) > MAX_FORMAT_WIDTH:
                raise BudgetExceeded(f"a format is wider than {MAX_FORMAT_WIDTH:,}")
            number = ""

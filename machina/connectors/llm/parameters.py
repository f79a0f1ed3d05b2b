"""Reads what authors write to set how a model answers: numbers, also where they came as text."""

from __future__ import annotations

from typing import Any


def read_number(value: Any) -> float | None:
    """A parameter as a number that makes sense; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None

"""How much work and depth the check of one answer may take."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final

MAX_LEVELS: Final = 100
"""Keywords inside keywords; the library's own frames end not far beyond."""


class CheckTooCostly(Exception):
    """Checking took more steps or time than it may."""


class TooDeep(Exception):
    """The answer, or the schema's references, are nested too deep."""


class Steps:
    """What one check may still do."""

    def __init__(self, steps: int, seconds: float) -> None:
        """`seconds` are of the thread's own computing: a busy machine fails no answer."""
        self._left = steps
        self._end = time.thread_time() + seconds
        self._level = 0

    def enter(self) -> None:
        """A keyword begins. Raises `CheckTooCostly` or `TooDeep`."""
        self._left -= 1
        self._level += 1
        if self._level > MAX_LEVELS:
            raise TooDeep
        if self._left < 0 or (self._left & 0xFF == 0 and time.thread_time() > self._end):
            raise CheckTooCostly

    def leave(self) -> None:
        """A keyword is done."""
        self._level -= 1


STEPS: Final[ContextVar[Steps]] = ContextVar("steps")

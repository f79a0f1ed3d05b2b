"""The server's clock between two looks at it: an offset to a clock of ours that never jumps."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from machina.store.mongo_shared import Shared
from machina.store.values import as_utc

FRESH_SECONDS: Final = 5.0
"""How long an answer is relied upon. Two good clocks part by less than a millisecond meanwhile."""
GOOD_SECONDS: Final = 0.05
TRIES: Final = 3


def elapsed() -> float:
    """Seconds that never jump, and that also pass while the machine sleeps, where it can tell."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Answer(NamedTuple):
    took: float
    told: datetime
    at: float
    """When it was that time, by our clock: half way between question and answer."""


class ServerClock:
    """Tells the server's time without asking each time.

    It errs by at most half the time that the best of up to three questions took (25 ms, unless the
    server answers slowly), and by the millisecond to which the server tells its time. This
    machine's own date, and jumps of it, do not matter.

    Args:
        ask: the server's time now.
        elapsed: a clock that only runs forward, in seconds.
    """

    def __init__(
        self, ask: Callable[[], Awaitable[datetime]], *, elapsed: Callable[[], float] = elapsed
    ) -> None:
        self._ask = ask
        self._elapsed = elapsed
        self._answer = Shared(self._measure)

    def forget(self) -> None:
        """What was known is not relied upon any more: the next call asks."""
        self._answer.forget()

    async def now(self) -> datetime:
        """The server's time, in UTC, to the millisecond."""
        answer = await self._answer.get()
        if self._elapsed() - answer.at > FRESH_SECONDS:
            self._answer.forget()
            answer = await self._answer.get()
        return as_utc(answer.told + timedelta(seconds=self._elapsed() - answer.at))

    async def aclose(self) -> None:
        """Ends a question under way."""
        await self._answer.aclose()

    async def _measure(self) -> _Answer:
        answers: list[_Answer] = []
        while len(answers) < TRIES and not (answers and answers[-1].took <= GOOD_SECONDS):
            asked = self._elapsed()
            told = await self._ask()
            took = self._elapsed() - asked
            answers.append(_Answer(took, told, asked + took / 2))
        return min(answers)

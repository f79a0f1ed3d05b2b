"""The gate: a bounded number of permits, each held from the start of a stream to its last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from machina.errors import Overloaded

_FIRST_GUESS: Final = 1.0
_WEIGHT: Final = 0.2
"""How much the newest holding time moves the mean."""
_LONGEST_RETRY: Final = 60.0


class Permit:
    """The right to relay one started stream. Give it back with `release`, any number of times."""

    def __init__(self, gate: Gate, taken_at: float) -> None:
        self._gate: Gate | None = gate
        self.taken_at = taken_at

    def release(self) -> None:
        """Frees the place. Synchronous, so that no cancellation can come between."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate._give_back(self)


class Gate:
    """At most `capacity` permits at once; who comes when all are taken waits a moment, then 429.

    `clock` gives seconds that never go back, `random` numbers in [0, 1).
    """

    def __init__(
        self,
        capacity: int,
        *,
        wait_seconds: float,
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self.capacity = capacity
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._random = random
        self._places = asyncio.Semaphore(capacity)
        self._held: set[Permit] = set()
        self._mean_seconds: float | None = None

    @property
    def active(self) -> int:
        """Permits taken now."""
        return len(self._held)

    async def acquire(self) -> Permit:
        """A permit, at once or within the short wait.

        Raises:
            Overloaded: all are taken; `retry_after` says when one is likely to be free.
        """
        try:
            async with asyncio.timeout(self._wait_seconds if self._places.locked() else None):
                await self._places.acquire()
        except TimeoutError:
            raise self._refusal() from None
        # From here to the caller nothing is awaited: what is acquired is always returned.
        permit = Permit(self, self._clock())
        self._held.add(permit)
        return permit

    def retry_after(self) -> float:
        """Seconds until a permit is likely to be free: mean holding time over capacity, jittered.

        Jitter, so that those refused together do not come back together.
        """
        mean = self._mean_seconds if self._mean_seconds is not None else _FIRST_GUESS
        if self._held:
            now = self._clock()
            # While nothing ends the past says too little: what is held now counts as well.
            mean = max(mean, sum(now - held.taken_at for held in self._held) / len(self._held))
        return min(mean / self.capacity * (0.5 + self._random()), _LONGEST_RETRY)

    def _give_back(self, permit: Permit) -> None:
        self._held.discard(permit)
        held_for = self._clock() - permit.taken_at
        mean = held_for if self._mean_seconds is None else self._mean_seconds
        self._mean_seconds = mean + _WEIGHT * (held_for - mean)
        self._places.release()

    def _refusal(self) -> Overloaded:
        return Overloaded(
            f"All {self.capacity} streams of this process are taken; try again after the time in "
            "Retry-After, or raise MAX_CONCURRENT_STREAMS or the number of processes.",
            retry_after=self.retry_after(),
        )

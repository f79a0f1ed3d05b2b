"""Limits on waiting for a provider, cheap enough to guard the wait for every token."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from machina.errors import ModelFailed


class WaitClock:
    """Guards the waits of one call, one at a time: `with clock.waiting("first byte", 30): await …`.

    `asyncio.timeout` sets and cancels a timer per wait, a fifth of what a token costs in all. Here
    one timer stands for the whole call and looks, when it rings, how far it has to go on.

    Only the wait is interrupted, never the consumer of the answer, however long it takes.
    """

    def __init__(self, total_seconds: float, host: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._total = total_seconds
        self._end = self._loop.time() + total_seconds
        self._limit, self._seconds = "total", total_seconds
        self._due = self._end
        self._task: asyncio.Task[Any] | None = None
        self._cancels_before = 0
        self._has_expired = False
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """The time on the loop's clock."""
        return self._loop.time()

    @property
    def seconds_left(self) -> float:
        """Until the total limit."""
        return self._end - self._loop.time()

    def close(self) -> None:
        """Stops the timer; the clock cannot be used again."""
        if self._timer is not None:
            self._timer.cancel()

    def waiting(self, limit: str, seconds: float, *, since: float | None = None) -> WaitClock:
        """The context of a wait of at most `seconds`, and not beyond the total limit.

        `since` is when the time began to count, on the loop's clock; now, if it is not given.
        Leaving it raises ModelFailed (`provider_timeout`, `details.limit`) when time was up.
        """
        self._due = (self._loop.time() if since is None else since) + seconds
        self._limit, self._seconds = limit, seconds
        if self._due > self._end:
            self._due, self._limit, self._seconds = self._end, "total", self._total
        return self

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._cancels_before = self._task.cancelling() if self._task else 0
        if self._timer is None or self._timer.when() > self._due:
            self._set_timer()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if task is None or not self._has_expired:
            return
        self._has_expired = False
        # As asyncio.timeout does: a cancellation from outside that came as well goes first.
        if task.uncancel() <= self._cancels_before and kind in (None, asyncio.CancelledError):
            raise timed_out(self._host, self._limit, self._seconds) from error

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # the consumer is at work; the next wait sets the timer anew
        if self._loop.time() < self._due:
            self._set_timer()
            return
        self._has_expired = True
        self._task.cancel()


def timed_out(host: str, limit: str, seconds: float) -> ModelFailed:
    """The failure for a limit of time, which it names."""
    return ModelFailed(
        f"{host} exceeded the {limit} limit of {seconds:g} s.",
        code="provider_timeout",
        retryable=True,
        details={"limit": limit},
    )

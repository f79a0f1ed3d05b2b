"""Closed, open, half-open: a state machine with an injected clock, without I/O, locks or tasks.

    closed ──(threshold failures in a row)──▶ open
      ▲                                        │ cool-down over
      │ probe succeeded                        ▼
      └───────────────────────────────────  half-open ──(probe failed)──▶ open

Half-open lets one request through, the probe. A probe that says nothing (its client left, its
process died) gives way to the next after `probe_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from machina.errors import BreakerOpen


class State(StrEnum):
    """Where a breaker stands; the words of the health route."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Ticket(NamedTuple):
    """What an admitted request gives back with its result."""

    period: int
    """Which stay in a state it was admitted in: a late result says nothing about the present."""
    probe: bool


class Snapshot(NamedTuple):
    """The figures of the health route."""

    state: State
    failure_count: int
    threshold: int


class Breaker:
    """One circuit. Every ticket from `admit` goes back to `success`, `failure` or `release`."""

    def __init__(
        self,
        name: str,
        *,
        threshold: int,
        cool_down_seconds: float,
        probe_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self._threshold = threshold
        self._cool_down = cool_down_seconds
        self._probe_limit = probe_seconds
        self._clock = clock
        self._period = 0
        self._failures = 0
        self._opened_at: float | None = None
        self._probe_until: float | None = None

    @property
    def limits(self) -> tuple[int, float, float]:
        """Threshold, cool-down and patience with a probe, the latter two in seconds."""
        return self._threshold, self._cool_down, self._probe_limit

    @property
    def state(self) -> State:
        """The state now; an open breaker becomes half-open by the passing of time."""
        if self._opened_at is None:
            return State.CLOSED
        cooled = self._clock() - self._opened_at >= self._cool_down
        return State.HALF_OPEN if cooled else State.OPEN

    def admit(self) -> Ticket:
        """Lets a request through.

        Raises:
            BreakerOpen: with the seconds until it is worth trying again.
        """
        now = self._clock()
        if self._opened_at is None:
            return Ticket(self._period, probe=False)
        ready = self._opened_at + self._cool_down
        if now < ready:
            raise refusal(self.name, self._failures, ready - now)
        if self._probe_until is not None and now < self._probe_until:
            raise refusal(self.name, self._failures, self._probe_until - now)
        self._period += 1  # a probe that comes back after its time is not this one
        self._probe_until = now + self._probe_limit
        return Ticket(self._period, probe=True)

    def success(self, ticket: Ticket) -> None:
        """The request got what it needed: a probe closes the breaker."""
        if ticket.period != self._period:
            return
        if ticket.probe:
            self._close()
        self._failures = 0

    def failure(self, ticket: Ticket) -> None:
        """The request failed for a reason of the server."""
        if ticket.period != self._period:
            return
        self._failures += 1
        if ticket.probe or self._failures >= self._threshold:
            self._period += 1
            self._opened_at = self._clock()
            self._probe_until = None

    def fail(self) -> None:
        """Something failed for a reason of the server, whatever period it was admitted in."""
        self.failure(Ticket(self._period, probe=self.state is State.HALF_OPEN))

    def release(self, ticket: Ticket) -> None:
        """The request ended without a verdict; a probe makes room for the next at once."""
        if ticket.probe and ticket.period == self._period:
            self._probe_until = None

    def reset(self) -> None:
        """Closes the breaker by hand."""
        self._close()
        self._failures = 0

    def snapshot(self) -> Snapshot:
        """State, consecutive failures and threshold."""
        return Snapshot(self.state, self._failures, self._threshold)

    def _close(self) -> None:
        self._period += 1
        self._opened_at = None
        self._probe_until = None


def refusal(name: str, failures: int, seconds: float) -> BreakerOpen:
    """What a refused caller is told; `seconds` until it is worth trying again."""
    return BreakerOpen(
        f"The circuit breaker '{name}' is open after {failures} failures in a row; "
        "try again later, or repair the cause and reset it as the administrator.",
        retry_after=seconds,
    )

"""When a call is tried again: only while nothing was said, a few times, and never as a storm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from machina.errors import ModelFailed

_TRANSIENT: Final = frozenset(("provider_unavailable", "provider_cut"))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how far apart in seconds."""

    tries_when_limited: int = 4
    tries_when_broken: int = 3
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 8.0


class RetryBudget:
    """Keeps the retries of a whole process to a share of its calls, however much fails.

    Each call earns a tenth of a retry, ten are saved at most and there at the start: of a hundred
    calls, at most twenty are repeated.
    """

    def __init__(self, *, earned_per_call: float = 0.1, most: float = 10.0) -> None:
        self._earned = earned_per_call
        self._most = most
        self._saved = most

    def earn(self) -> None:
        """A call begins."""
        self._saved = min(self._saved + self._earned, self._most)

    def spend(self) -> bool:
        """Whether one more retry may be made; if so, it is paid for."""
        # Ten times a tenth is a little less than one.
        if self._saved < 1 - 1e-9:
            return False
        self._saved -= 1
        return True


class Retries:
    """The tries of one call. `random` gives numbers from 0 to 1."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, random: Callable[[], float]):
        self._policy = policy
        self._budget = budget
        self._random = random
        self.tries = 1
        budget.earn()

    def pause_after(self, failure: ModelFailed, seconds_left: float) -> float | None:
        """How long to wait before the next try, in seconds; None: there is none."""
        if self.tries >= self._most_tries(failure):
            return None
        pause = self._pause(failure.retry_after)
        if pause >= seconds_left:
            return None
        # A time that the provider named is an invitation; only what we guess can become a storm.
        if failure.retry_after is None and not self._budget.spend():
            return None
        self.tries += 1
        return pause

    def _most_tries(self, failure: ModelFailed) -> int:
        if not failure.retryable:
            return 1
        if failure.code == "provider_rate_limited":
            return self._policy.tries_when_limited
        is_broken = failure.code in _TRANSIENT or failure.details.get("limit") == "connect"
        return self._policy.tries_when_broken if is_broken else 1

    def _pause(self, retry_after: float | None) -> float:
        first, longest = self._policy.first_pause_seconds, self._policy.longest_pause_seconds
        if retry_after is not None:
            return retry_after + first * self._random()
        return min(first * 2.0 ** (self.tries - 1), longest) * (0.5 + 0.5 * self._random())

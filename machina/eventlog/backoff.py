"""How long to wait before Redis is tried again."""

from __future__ import annotations

import random
from typing import Final

FIRST_SECONDS: Final = 0.05
MOST_SECONDS: Final = 1.0


class Backoff:
    """Doubling pauses from 50 ms to 1 s, each shortened at random so that processes spread out."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.failures = 0
        """Failures since the last success."""

    def next_pause(self) -> float:
        """Counts a failure and says how many seconds to wait after it."""
        pause = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.failures, 10))
        self.failures += 1
        return pause * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Notes a success."""
        self.failures = 0


def make_rng() -> random.Random:
    """Randomness for jitter, where no test brings its own."""
    return random.Random()  # noqa: S311  # spreads retries; nothing secret hangs on it

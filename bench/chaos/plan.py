"""Everything that is decided by the seed before anything starts: runs, drops, faults."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What is done to a process."""

    WORKER_KILL = "worker-kill"
    WORKER_PAUSE = "worker-pause"  # longer than its lease
    WORKER_STALL = "worker-stall"  # shorter than its lease
    WORKER_TERM = "worker-term"
    API_KILL = "api-kill"
    API_PAUSE = "api-pause"
    API_TERM = "api-term"
    REDIS_KILL = "redis-kill"
    REDIS_FREEZE = "redis-freeze"

    @property
    def part(self) -> str:
        """The part of the deployment that is hit: `worker`, `api` or `redis`."""
        return self.value.partition("-")[0]

    @property
    def moves_runs(self) -> bool:
        """Whether runs may rightly go to another attempt because of it."""
        return self.part != "api" and self is not Kind.WORKER_STALL


K = Kind
DECKS: Final[dict[str, tuple[Kind, ...]]] = {
    "workers": (K.WORKER_KILL, K.WORKER_PAUSE, K.WORKER_TERM, K.WORKER_KILL, K.WORKER_STALL),
    "api": (K.API_KILL, K.API_TERM, K.API_KILL, K.API_TERM, K.API_PAUSE),
    "redis": (K.REDIS_KILL, K.REDIS_FREEZE, K.REDIS_KILL, K.REDIS_KILL),
    "mixed": (
        *(K.WORKER_KILL, K.API_KILL, K.REDIS_KILL, K.WORKER_PAUSE, K.API_TERM, K.WORKER_TERM),
        *(K.WORKER_KILL, K.API_KILL, K.REDIS_FREEZE, K.API_TERM, K.WORKER_STALL, K.API_PAUSE),
    ),
}
"""What each profile deals, most telling first, again from the start when it runs out."""

SECONDS: Final[dict[Kind, tuple[float, float]]] = {
    Kind.WORKER_PAUSE: (6.0, 12.0),
    Kind.WORKER_STALL: (0.3, 1.5),
    Kind.API_PAUSE: (0.5, 4.0),
    Kind.REDIS_FREEZE: (1.0, 8.0),
}
"""How long a process stands still; the others have no length."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One fault: when, in seconds from the start of the load, and to whom."""

    number: int
    kind: Kind
    due: float
    target: int
    """Any number; taken modulo the processes of that part."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One run that a client starts: what the scripted model says, and when it is cancelled."""

    key: str
    tokens: int
    delay_ms: int
    cancel_after: int | None = None
    """Events seen before the cancel is sent; None for a run that may end by itself."""

    @property
    def body(self) -> dict[str, object]:
        """The request that starts it."""
        script = f"[[script: tokens={self.tokens} delay_ms={self.delay_ms}]]"
        return {"messages": [{"role": "user", "content": script}], "stream_workflows": False}

    @property
    def text(self) -> str:
        """What the model says, whole."""
        return " ".join(f"tok-{number}" for number in range(self.tokens))


@dataclass(frozen=True, slots=True)
class Habits:
    """How clients behave and how much they put up with; seconds, and shares of one."""

    drop_share: float = 0.02
    """Of events after which the client leaves, whatever more had come with them."""
    cancel_share: float = 0.03
    rejoin_share: float = 0.2
    """Of returns that repeat the POST instead of asking for the stream."""
    away_seconds: float = 0.5
    silence_seconds: float = 5.0
    """Without a byte, heartbeats included, a client goes elsewhere."""
    linger_seconds: float = 5.0
    """How long a body may stay open after the terminal event."""
    run_seconds: float = 90.0
    """What a run may take in all, faults included."""
    longest_wait: float = 3.0
    """Of a Retry-After, the most that is waited: the load must not end because of one fault."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is going on at once and how fast."""

    streams: int
    shortest: float = 3.0
    longest: float = 10.0
    events_per_second: float = 600.0
    """Of all streams together: the machine is small."""

    @property
    def rate(self) -> float:
        """Events per second of one stream."""
        return max(2.0, min(self.events_per_second / self.streams, 40.0))


def plan_faults(
    seed: int, deck: Sequence[Kind], count: int, *, first: float, every: float
) -> list[FaultPlan]:
    """`count` faults, one each `every` seconds, moved by up to a quarter of that."""
    rng = random.Random(f"{seed}:faults")
    kinds = [deck[number % len(deck)] for number in range(count)]
    rng.shuffle(kinds)
    return [
        FaultPlan(
            number=number,
            kind=kind,
            due=first + every * number + rng.uniform(-0.25, 0.25) * every,
            target=rng.randrange(1_000),
            seconds=round(rng.uniform(*SECONDS.get(kind, (0.0, 0.0))), 2),
        )
        for number, kind in enumerate(kinds)
    ]


def plan_runs(seed: int, client: int, load: Load, habits: Habits) -> Iterator[RunPlan]:
    """The runs of one client, one after the other, without end."""
    rng = random.Random(f"{seed}:runs:{client}")
    number = 0
    while True:
        tokens = max(3, round(rng.uniform(load.shortest, load.longest) * load.rate))
        cancelled = rng.random() < habits.cancel_share
        yield RunPlan(
            key=f"chaos-{seed}-{client}-{number}",
            tokens=tokens,
            delay_ms=round(1000 / load.rate),
            cancel_after=rng.randrange(tokens + 2) if cancelled else None,
        )
        number += 1


def client_random(seed: int, client: int) -> random.Random:
    """The dice of one client while it runs."""
    return random.Random(f"{seed}:client:{client}")


def deck_of(profile: str) -> tuple[Kind, ...]:
    """The deck of a profile or of one kind; of several joined by `+`, one card of each in turn.

    Raises:
        ValueError: one is not known.
    """
    decks = [DECKS.get(name) or (Kind(name),) for name in profile.split("+")]
    rounds = math.lcm(*(len(deck) for deck in decks))
    return tuple(deck[number % len(deck)] for number in range(rounds) for deck in decks)

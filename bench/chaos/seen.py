"""What clients saw and what was done to the servers meanwhile: the facts that are judged later.

Nothing here or in the oracle comes from the product: what judges it must not share its mistakes.
All times are seconds of the monotonic clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from bench.chaos.plan import FaultPlan, RunPlan


class Ending(StrEnum):
    """How a connection ended, as its client saw it."""

    DONE = "done"  # properly, after the terminal event
    CLEAN = "clean"  # properly, and more will come
    CUT = "cut"  # broken off by the other side
    DROPPED = "dropped"  # we left
    SILENT = "silent"  # not even a heartbeat, so we left
    REFUSED = "refused"  # no answer at all
    ANSWERED = "answered"  # with another status than 200


class How(StrEnum):
    """What a connection was opened for."""

    START = "start"  # POST, until one was answered with a run
    REJOIN = "rejoin"  # the same POST again, with the id of the last event
    RESUME = "resume"  # GET of the run's stream


class Id(NamedTuple):
    """An event id, `<attempt>-<seq>`."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"


@dataclass(slots=True)
class Connection:
    """One request for a stream, from its first byte to its last."""

    instance: int
    how: How
    after: str | None
    opened: float
    answered: float | None = None
    status: int | None = None
    retry_after: str | None = None
    run_id: str | None = None
    said: str = ""
    ending: Ending = Ending.REFUSED
    closed: float = 0.0
    rest: bytes = b""
    first_event: float | None = None
    done: float | None = None
    """When the terminal event came."""


class Line(NamedTuple):
    """A line of a stream without its end, and when and how it came."""

    data: bytes
    at: float
    connection: int


@dataclass(slots=True)
class Watch:
    """One run from the first request to `done`, and what was asked about it afterwards."""

    plan: RunPlan
    began: float
    run_id: str = ""
    connections: list[Connection] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    ended: float | None = None
    """When the connection with the terminal event was over; None if that never came."""
    cancel_sent: float | None = None
    cancel_answered: float | None = None
    replay: list[bytes] | None = None
    replay_rest: bytes = b""
    status: str | None = None
    """The run's public status, and what it says behind that word."""
    outcome: str | None = None
    asked_at_end: list[bytes] | None = None
    """What came after the terminal id, where that was asked for."""
    trouble: list[str] = field(default_factory=list)
    """Answers to the questions afterwards that should not have been given."""

    @property
    def last_id(self) -> str | None:
        """The id to resume after: of the last line that could be read."""
        for line in reversed(self.lines):
            event = read_event(line.data)
            if event is not None:
                return str(event["id"])
        return None


@dataclass(slots=True)
class Fault:
    """A planned fault and what became of it. `at` is None while it has not been fired."""

    plan: FaultPlan
    at: float | None = None
    over: float | None = None
    """When the process was gone, or went on."""
    instance: int | None = None
    """The index of the API that was hit."""
    streams: int = 0
    """Connections open there."""
    exit_seconds: float | None = None
    exit_code: int | None = None
    note: str = ""


def read_event(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None when it is not one."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or read_id(event.get("id")) is None:
        return None
    shapes = {"type": str, "content": str, "metadata": dict}
    return event if all(isinstance(event.get(k), t) for k, t in shapes.items()) else None


def read_id(text: Any) -> Id | None:
    """The two numbers of an event id; None when it is not one."""
    attempt, hyphen, seq = text.partition("-") if isinstance(text, str) else ("", "", "")
    if not (hyphen and attempt.isdecimal() and seq.isdecimal()):
        return None
    return Id(int(attempt), int(seq))


def is_done(line: bytes) -> bool:
    """Whether a line is the terminal event."""
    return b'"done"' in line and (read_event(line) or {}).get("type") == "done"


def shown_text(events: Sequence[dict[str, Any]], *, final: bool = True) -> str:
    """What a client shows in the end: pieces appended, `final` replaces, `restart` takes back.

    With `final` false, what the pieces alone add up to.
    """
    text = ""
    for event in events:
        metadata = event["metadata"]
        if event["type"] == "restart":
            text = str(metadata.get("content", ""))
        elif event["type"] == "content" and metadata.get("final") is not True:
            text += event["content"]
        elif event["type"] == "content" and final:
            text = event["content"]
    return text

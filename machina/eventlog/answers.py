"""What the log answers to an append, and how a refusal is raised."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from machina.errors import Fenced, Invalid, MachinaError

MAX_LINE_BYTES: Final = 1_048_576
"""The longest event the log takes, as an encoded line."""


class Answer(StrEnum):
    """The six answers of the script, and two of the writer's own."""

    OK = "OK"
    DUP = "DUP"
    """All of it was there already: an earlier try whose answer was lost. Success."""
    GAP = "GAP"
    """The log ends before the writer's place: Redis lost its tail. Open a new attempt."""
    FENCED = "FENCED"
    """A newer attempt has begun. Stop, touch nothing."""
    CLOSED = "CLOSED"
    """The terminal entry is there: nothing can follow."""
    LOST = "LOST"
    """The log began and is gone. Open a new attempt."""
    OUTBOX = "OUTBOX"
    """Redis took nothing for longer than the outbox may wait. Hand the run back."""
    FULL = "FULL"
    """The same, because Redis has no memory or disk left. A new attempt would fare no better."""

    @property
    def is_success(self) -> bool:
        """Whether the entries are in the log."""
        return self in (Answer.OK, Answer.DUP)


_MESSAGES: Final = {
    Answer.GAP: "The event log lost its newest entries; a new attempt must go on.",
    Answer.FENCED: "A newer attempt of the run writes the event log.",
    Answer.CLOSED: "The event log has ended.",
    Answer.LOST: "The event log has vanished; a new attempt must begin it again.",
    Answer.OUTBOX: "The event log took no events for too long; the run is handed back.",
    Answer.FULL: "The event log is full and takes no more events.",
}


class AppendRefused(MachinaError):
    """The log refuses this attempt for good; `answer` says why."""

    code, title, status = "append_refused", "Append refused", 409

    def __init__(self, answer: Answer) -> None:
        super().__init__(_MESSAGES.get(answer))
        self.answer = answer


class AppendFenced(AppendRefused, Fenced):
    """The refusal `FENCED`; caught as either."""

    code, title = Fenced.code, Fenced.title


class EventTooLarge(Invalid):
    """An event's line would exceed `MAX_LINE_BYTES`; it got no id and the log goes on."""

    code, title, status = "event_too_large", "Event too large", 413


def make_refusal(answer: Answer) -> AppendRefused:
    """The error to raise for a refusal: `AppendFenced` for FENCED, else `AppendRefused`."""
    return AppendFenced(answer) if answer is Answer.FENCED else AppendRefused(answer)

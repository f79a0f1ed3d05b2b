"""Why an attempt stops before its engine is done, and what follows from it."""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Final

from machina.eventlog.answers import Answer


class Interrupt(StrEnum):
    """The reason decides the end: an outcome, back into the queue, or silence."""

    CANCEL = auto()
    """Somebody asked for it: the run ends `cancelled`."""
    TIMEOUT = auto()
    """The run's clock ran out: it ends `timeout`."""
    DRAIN = auto()
    """This process stops: back into the queue, no attempt spent."""
    LOG_LOST = auto()
    """Redis lost what was written, or takes nothing for too long: back, no attempt spent."""
    LOG_FULL = auto()
    """Redis has no room for what the run says: it ends `failed`, and the record says why."""
    STORE_LOST = auto()
    """The store stayed away for longer than a task may wait: back, one attempt spent."""
    FENCED = auto()
    """The run has a newer attempt, or this process lost its lease: touch nothing."""


SPENT: Final = frozenset((Interrupt.STORE_LOST,))
"""Interrupts that count as a failed execution."""

BY_ANSWER: Final = {
    Answer.FENCED: Interrupt.FENCED,
    Answer.CLOSED: Interrupt.FENCED,
    Answer.GAP: Interrupt.LOG_LOST,
    Answer.LOST: Interrupt.LOG_LOST,
    Answer.OUTBOX: Interrupt.LOG_LOST,
    Answer.FULL: Interrupt.LOG_FULL,
}
"""What an attempt does when the log refuses it."""

"""The two ids a client sees: of a run, and of an event within it. Pure: no clock, no I/O."""

from __future__ import annotations

import itertools
import os
import re
from typing import NamedTuple, NewType

from machina.errors import MalformedEventId

RunId = NewType("RunId", str)
"""24 lower-case hex digits in the ObjectId form: seconds, 5 bytes of process, 3 bytes of count."""

OBJECT_ID = re.compile(r"[0-9a-f]{24}\Z")
_EVENT_ID = re.compile(r"([0-9]{1,9})-([0-9]{1,9})\Z")
_COUNT_MASK = 0xFFFFFF


class ObjectIdMint:
    """Mints ids that rise within a process and sort by second across processes."""

    def __init__(self, process: bytes, start: int) -> None:
        self._process = process.hex()
        self._count = itertools.count(start)

    def __call__(self, now: float) -> str:
        """A new id for the time `now`, in seconds since the epoch."""
        return f"{int(now) & 0xFFFFFFFF:08x}{self._process}{next(self._count) & _COUNT_MASK:06x}"


def make_mint() -> ObjectIdMint:
    """A mint with randomness of its own; one per process is enough."""
    # Half the counter's range is left, so that a process does not wrap within its first second.
    return ObjectIdMint(os.urandom(5), int.from_bytes(os.urandom(3), "big") & 0x7FFFFF)


def is_object_id(text: str) -> bool:
    """Whether a path segment is an id rather than a name."""
    return OBJECT_ID.match(text) is not None


class EventId(NamedTuple):
    """`<attempt>-<seq>`: both from 1, seq dense within an attempt. Compares in log order."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Reads the id a client sends back.

        Raises:
            MalformedEventId: for anything but two numbers of at most nine digits and a hyphen.
        """
        match = _EVENT_ID.match(text) if len(text) <= 19 else None
        if match is None:
            raise MalformedEventId(
                "The event id must look like '1-17': send the id of the last event you received, "
                "or leave it out to start from the beginning.",
                field="Last-Event-ID",
            )
        return cls(int(match[1]), int(match[2]))


BEGINNING = EventId(0, 0)
"""Before every event of every attempt."""

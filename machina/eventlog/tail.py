"""The newest entries of one run, read once for all its viewers; a viewer is a cursor on it."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog

from machina.events import Entry
from machina.ids import EventId, RunId

log = structlog.get_logger(__name__)

RING_ENTRIES: Final = 1_000
RING_BYTES: Final = 262_144
"""Bounds of what is kept for viewers that have not come yet; the slower ones read again."""
TAKE_ENTRIES: Final = 500
TAKE_BYTES: Final = 65_536
"""Bounds of what one viewer gets at once; a single larger entry comes alone."""
FIRST_READ: Final = 16
MOST_READ: Final = 512


class Viewer(Protocol):
    """One subscription, as the tail sees it."""

    cursor: EventId
    disturbed: bool


class Pace:
    """How many entries one read may ask for: powers of two, so that equal reads share a command.

    Grows while reads come back full and small, and shrinks to what fits after a large one: Redis
    bounds a read by entries only, and memory is a matter of bytes.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = FIRST_READ

    def observe(self, entries: int, size: int) -> None:
        """Learns from a read of `entries` with `size` bytes."""
        if size > TAKE_BYTES:
            fitting = max(1, entries * TAKE_BYTES // size)
            self.count = 1 << (fitting.bit_length() - 1)
        elif entries < self.count:
            self.count = min(self.count, FIRST_READ)
        else:
            self.count = min(MOST_READ, self.count * 2)


def _nothing() -> None:
    """For tails that nobody counts."""


class Tail:
    """A ring with every entry after `floor` up to `cursor`, and who waits for the next one."""

    __slots__ = (
        "_bytes",
        "_hole",
        "_on_hole",
        "_ring",
        "cursor",
        "dirty",
        "floor",
        "key",
        "pace",
        "run_id",
        "viewers",
        "waiting",
    )

    def __init__(
        self, run_id: RunId, key: bytes, after: EventId, on_hole: Callable[[], None] = _nothing
    ) -> None:
        self.run_id = run_id
        self.key = key
        self.floor = after
        self.cursor = after
        """Everything up to here has been read."""
        self.dirty = True
        """There may be entries after `cursor`."""
        self.pace = Pace()
        self.viewers: dict[Viewer, None] = {}
        self.waiting: dict[Viewer, asyncio.Future[bool]] = {}
        self._ring: list[Entry] = []
        self._bytes = 0
        self._hole: EventId | None = None
        self._on_hole = on_hole

    @property
    def ring_size(self) -> tuple[int, int]:
        """Entries and bytes held in memory."""
        return len(self._ring), self._bytes

    def covers(self, cursor: EventId) -> bool:
        """Whether the entry after `cursor` is in the ring."""
        return self.floor <= cursor < self.cursor

    def take(self, cursor: EventId) -> list[Entry]:
        """The entries after `cursor`, at least one and no more than a viewer gets at once."""
        taken = portion(self._ring, self._index_after(cursor))
        if len(self.viewers) == 1:
            self._drop_up_to(taken[-1].id)
        return taken

    def extend(self, entries: Sequence[Entry]) -> None:
        """Adds what was read after `cursor`, and wakes the viewers it is for."""
        if not entries:
            return
        self._drop_up_to(min((viewer.cursor for viewer in self.viewers), default=self.cursor))
        self._add(entries)
        self.wake(viewer for viewer in self.waiting if viewer.cursor < self.cursor)

    def move(self, after: EventId, entries: Sequence[Entry]) -> None:
        """Begins again at another place: `entries` are the first ones after `after`."""
        self.floor = self.cursor = after
        self._ring, self._bytes = [], 0
        self.dirty = True
        self._add(entries)
        self.wake(self.waiting)

    def disturb(self, viewers: Iterable[Viewer]) -> None:
        """Marks these viewers, and ends their waiting."""
        marked = list(viewers)
        for viewer in marked:
            viewer.disturbed = True
        self.wake(marked)

    def note_hole(self, found: EventId) -> None:
        """Logs, once, that `found` does not follow what was read: the log was tampered with."""
        if self._hole != found:
            self._hole = found
            self._on_hole()
            log.error("log.hole", run_id=self.run_id, after=str(self.cursor), found=str(found))

    def wake(self, viewers: Iterable[Viewer]) -> None:
        """Ends the waiting of these viewers."""
        for viewer in list(viewers):
            waiter = self.waiting.pop(viewer, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(True)

    def _add(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        self._ring += entries
        self._bytes += sum(len(entry.data) for entry in entries)
        self.cursor = entries[-1].id
        drop, spare = max(0, len(self._ring) - RING_ENTRIES), self._bytes
        spare -= sum(len(entry.data) for entry in self._ring[:drop])
        while spare > RING_BYTES and drop < len(self._ring) - 1:
            spare -= len(self._ring[drop].data)
            drop += 1
        self._drop(drop)

    def _drop_up_to(self, cursor: EventId) -> None:
        if cursor > self.floor:
            self._drop(self._index_after(cursor))

    def _drop(self, count: int) -> None:
        if count:
            self.floor = self._ring[count - 1].id
            self._bytes -= sum(len(entry.data) for entry in self._ring[:count])
            del self._ring[:count]

    def _index_after(self, cursor: EventId) -> int:
        if not self._ring or cursor < self._ring[0].id:
            return 0
        return bisect_right(self._ring, cursor, key=_id)


def _id(entry: Entry) -> EventId:
    return entry.id


def portion(entries: Sequence[Entry], start: int = 0) -> list[Entry]:
    """What one viewer gets at once of `entries`, from index `start` on."""
    size = 0
    for index in range(start, min(len(entries), start + TAKE_ENTRIES)):
        size += len(entries[index].data)
        if size > TAKE_BYTES and index > start:
            return list(entries[start:index])
    return list(entries[start : start + TAKE_ENTRIES])


def contiguous(cursor: EventId, entries: Sequence[Entry]) -> int:
    """How many of `entries` follow `cursor` without a hole: seq by seq, or as a new attempt."""
    attempt, seq = cursor
    for index, entry in enumerate(entries):
        next_attempt, next_seq = entry.id
        if next_seq != (seq + 1 if next_attempt == attempt else 1) or next_attempt < attempt:
            return index
        attempt, seq = next_attempt, next_seq
    return len(entries)

"""The ring of one run, and how much a read may ask for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from machina.eventlog.tail import (
    FIRST_READ,
    MOST_READ,
    RING_BYTES,
    RING_ENTRIES,
    TAKE_BYTES,
    TAKE_ENTRIES,
    Pace,
    Tail,
    contiguous,
)
from machina.events import Entry
from machina.ids import BEGINNING, EventId, RunId

RUN = RunId("65f0000000000000000000a1")


@dataclass(eq=False)
class Cursor:
    """A viewer that is only a place in the log."""

    cursor: EventId
    disturbed: bool = False


def entries(first: int, last: int, *, attempt: int = 1, size: int = 10) -> list[Entry]:
    return [Entry(EventId(attempt, seq), b"x" * size) for seq in range(first, last + 1)]


def make_tail(after: EventId = BEGINNING, *cursors: EventId) -> Tail:
    tail = Tail(RUN, b"key", after)
    for cursor in cursors or (after, after):
        tail.viewers[Cursor(cursor)] = None
    return tail


def test_the_ring_serves_every_cursor_it_covers() -> None:
    tail = make_tail()
    tail.extend(entries(1, 5))
    tail.extend(entries(1, 2, attempt=2))
    assert tail.take(BEGINNING) == entries(1, 5) + entries(1, 2, attempt=2)
    assert tail.take(EventId(1, 3)) == entries(4, 5) + entries(1, 2, attempt=2)
    assert tail.take(EventId(1, 9)) == entries(1, 2, attempt=2), "an id that was never given out"
    assert tail.covers(EventId(2, 1))
    assert not tail.covers(EventId(2, 2))


def test_the_ring_keeps_only_the_newest_entries_within_its_bounds() -> None:
    tail = make_tail()
    tail.extend(entries(1, RING_ENTRIES + 10))
    assert tail.ring_size[0] == RING_ENTRIES
    assert not tail.covers(EventId(1, 9))
    assert tail.take(EventId(1, 10))[0].id == EventId(1, 11)
    tail.extend(entries(RING_ENTRIES + 11, RING_ENTRIES + 14, size=RING_BYTES // 3))
    assert tail.ring_size == (3, RING_BYTES // 3 * 3)
    assert tail.floor == EventId(1, RING_ENTRIES + 11)


def test_the_ring_keeps_the_newest_entry_even_when_it_is_larger_than_the_ring() -> None:
    tail = make_tail()
    tail.extend(entries(1, 3, size=2 * RING_BYTES))
    assert tail.ring_size == (1, 2 * RING_BYTES)
    assert tail.take(EventId(1, 2)) == entries(3, 3, size=2 * RING_BYTES)


def test_the_ring_forgets_what_every_viewer_has_taken() -> None:
    tail = make_tail(BEGINNING, EventId(1, 2), EventId(1, 4))
    tail.extend(entries(1, 5))
    tail.extend(entries(6, 7))
    assert tail.ring_size[0] == 5
    assert tail.floor == EventId(1, 2)


def test_the_ring_is_empty_when_its_only_viewer_has_taken_all() -> None:
    tail = make_tail(BEGINNING, BEGINNING)
    tail.extend(entries(1, 5))
    tail.take(BEGINNING)
    assert tail.ring_size == (0, 0)
    assert tail.floor == tail.cursor == EventId(1, 5)


def test_a_viewer_gets_no_more_at_once_than_its_bounds() -> None:
    tail = make_tail()
    tail.extend(entries(1, TAKE_ENTRIES + 5))
    assert len(tail.take(BEGINNING)) == TAKE_ENTRIES
    tail = make_tail()
    tail.extend(entries(1, 4, size=TAKE_BYTES // 2))
    assert len(tail.take(BEGINNING)) == 2
    tail = make_tail()
    tail.extend(entries(1, 2, size=TAKE_BYTES + 1))
    assert len(tail.take(BEGINNING)) == 1


def test_a_moved_tail_covers_only_what_it_was_given() -> None:
    tail = make_tail()
    tail.extend(entries(1, 5))
    tail.dirty = False
    tail.move(EventId(1, 7), entries(8, 9))
    assert not tail.covers(EventId(1, 3))
    assert tail.take(EventId(1, 7)) == entries(8, 9)
    assert tail.dirty
    tail.move(EventId(1, 2), [])
    assert tail.cursor == tail.floor == EventId(1, 2)


@pytest.mark.parametrize(
    ("cursor", "ids", "sound"),
    [
        ((0, 0), [(1, 1), (1, 2)], 2),
        ((0, 0), [(2, 1)], 1),
        ((0, 0), [(1, 2)], 0),
        ((1, 3), [(1, 4), (2, 1), (2, 2), (5, 1)], 4),
        ((1, 3), [(1, 5)], 0),
        ((1, 3), [(2, 2)], 0),
        ((1, 3), [(1, 4), (1, 6)], 1),
        ((1, 3), [], 0),
    ],
)
def test_a_hole_is_where_a_seq_is_missing(
    cursor: tuple[int, int], ids: list[tuple[int, int]], sound: int
) -> None:
    found = [Entry(EventId(*id), b"") for id in ids]
    assert contiguous(EventId(*cursor), found) == sound


def test_reads_grow_while_they_come_back_full_and_small() -> None:
    pace = Pace()
    sizes = []
    for _ in range(8):
        sizes.append(pace.count)
        pace.observe(pace.count, pace.count * 50)
    assert sizes == [16, 32, 64, 128, 256, 512, 512, 512]
    assert pace.count == MOST_READ
    pace.observe(3, 300)
    assert pace.count == FIRST_READ


def test_reads_shrink_to_what_fits_after_a_large_one() -> None:
    pace = Pace()
    pace.observe(16, 16 * TAKE_BYTES)
    assert pace.count == 1
    pace.observe(1, TAKE_BYTES * 10)
    assert pace.count == 1
    pace.observe(1, 100)
    assert pace.count == 2
    pace = Pace()
    pace.observe(16, TAKE_BYTES * 3)
    assert pace.count == 4

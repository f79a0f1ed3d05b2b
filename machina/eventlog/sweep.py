"""Checks open logs against what was read of them: missed bells, lost tails, vanished logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from machina.eventlog.reads import LogReads
from machina.eventlog.tail import Tail, Viewer
from machina.ids import EventId


class _Check(NamedTuple):
    """One log as it was when the question was sent."""

    tail: Tail
    cursor: EventId
    viewers: dict[Viewer, EventId]


async def sweep(tails: Sequence[Tail], reads: LogReads, touch: Callable[[Tail], None]) -> None:
    """Reads each log from its newest known entry on, which must still be there. One command.

    `touch` gets the tails that have something new. Viewers that have seen more than the log now
    holds are marked disturbed. Tails nobody waits for are only marked: they will look themselves.
    """
    checks: dict[bytes, _Check] = {}
    for tail in tails:
        if tail.waiting:
            viewers = {viewer: viewer.cursor for viewer in tail.waiting}
            checks[tail.key] = _Check(tail, tail.cursor, viewers)
        else:
            tail.dirty = True
    if not checks:
        return
    found = await reads.many(((key, _before(check.cursor)) for key, check in checks.items()), 2)
    for key, check in checks.items():
        if check.tail.cursor == check.cursor:
            _judge(check, [entry.id for entry in found.get(key, ())], touch)


def _judge(check: _Check, ids: Sequence[EventId], touch: Callable[[Tail], None]) -> None:
    if ids and ids[-1] > check.cursor:
        touch(check.tail)
    if len(ids) == 2:
        return  # there may be more: what is beyond is judged when the tail has come nearer
    if ids:
        top = ids[0]
    elif check.cursor.seq > 0:
        top = _before(check.cursor)  # or lower: the newest known entry is gone
    else:
        top = check.cursor
    check.tail.disturb(
        [
            viewer
            for viewer, cursor in check.viewers.items()
            if cursor > top and viewer.cursor == cursor
        ]
    )


def _before(cursor: EventId) -> EventId:
    return EventId(cursor.attempt, cursor.seq - 1) if cursor.seq > 0 else cursor

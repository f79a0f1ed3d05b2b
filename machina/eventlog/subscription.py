"""One viewer's reading of one log: a cursor, and never a queue."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog
from redis.exceptions import RedisError

from machina.eventlog.tail import Tail, contiguous, portion
from machina.events import Entry
from machina.ids import EventId, RunId

log = structlog.get_logger(__name__)

CATCH_UP_SECONDS: Final = 1.0
"""A read of one's own may take this long, whatever the time limit of the call."""
RETRY_SECONDS: Final = 0.25


class Source(Protocol):
    """What a subscription asks of the reader."""

    def request(self, tail: Tail) -> None:
        """Has the tail read on, together with others."""

    async def read_after(self, key: bytes, cursor: EventId, count: int) -> list[Entry]:
        """At most `count` entries after `cursor`, straight from Redis. Raises `RedisError`."""


class Subscription:
    """Made by `EventLogReader.subscribe`. Used by one task at a time."""

    def __init__(self, run_id: RunId, tail: Tail, source: Source, after: EventId) -> None:
        self.run_id = run_id
        self.cursor = after
        """The id of the newest entry returned so far, at first where the reading began."""
        self.disturbed = False
        """The log has lost entries that were read, vanished, or has a hole after the cursor."""
        self._tail = tail
        self._source = source
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def take_disturbed(self) -> bool:
        """Whether the log was found disturbed; clears the mark. The next sweep may set it again."""
        disturbed, self.disturbed = self.disturbed, False
        return disturbed

    async def next(self, timeout: float) -> list[Entry]:
        """The entries after the cursor that are there, in order: one to 500, 64 KiB or one entry.

        An empty list means `timeout` seconds of silence, or that `disturbed` is set; take that
        before calling again. While Redis is away there is only silence.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        looked = False
        while True:
            tail = self._tail
            if tail.covers(self.cursor):
                return self._advance(tail.take(self.cursor))
            remaining = deadline - loop.time()
            if self.disturbed or (looked and remaining <= 0):
                return []
            if looked or self.cursor == tail.cursor:
                if not await self._wait(remaining):
                    return []
                looked = False
            else:
                entries = await self._catch_up(remaining)
                if entries:
                    return self._advance(entries)
                looked = entries is not None or remaining <= 0

    def _advance(self, entries: list[Entry]) -> list[Entry]:
        self.cursor = entries[-1].id
        return entries

    def close(self) -> None:
        """Lets the timer go; called when the reading ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _wait(self, seconds: float) -> bool:
        """Waits for the tail to move on; False when the time is over."""
        tail = self._tail
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._deadline = loop.time() + max(seconds, 0)
        if self._timer is None or self._timer_at > self._deadline:
            self._set_timer(loop)
        tail.waiting[self] = waiter
        if tail.dirty:
            self._source.request(tail)
        try:
            return await waiter
        finally:
            if tail.waiting.get(self) is waiter:
                del tail.waiting[self]

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.close()
        self._timer_at = self._deadline
        self._timer = loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        """One timer outlives many waits: most end long before it, and then it is set again."""
        self._timer = None
        waiter = self._tail.waiting.get(self)
        if waiter is None or waiter.done():
            return  # the next wait sets a timer of its own
        if self._deadline > self._timer_at:
            self._set_timer(asyncio.get_running_loop())
        else:
            waiter.set_result(False)

    async def _catch_up(self, remaining: float) -> list[Entry] | None:
        """Reads where the ring does not reach; None when Redis does not answer."""
        tail, cursor = self._tail, self.cursor
        try:
            async with asyncio.timeout(max(remaining, CATCH_UP_SECONDS)):
                entries = await self._source.read_after(tail.key, cursor, tail.pace.count)
        except (RedisError, OSError) as error:  # OSError: TimeoutError is one
            log.debug("catch_up.failed", run_id=self.run_id, error=repr(error))
            await asyncio.sleep(min(max(remaining, 0), RETRY_SECONDS))
            return None
        tail.pace.observe(len(entries), sum(len(entry.data) for entry in entries))
        sound = entries[: contiguous(cursor, entries)]
        if len(sound) < len(entries):
            self.disturbed = True
            tail.note_hole(entries[len(sound)].id)
        if sound and sound[-1].id > tail.cursor:
            tail.move(cursor, sound)
        elif not sound and (entries or cursor < tail.floor):
            # Nothing sound follows: at a hole, or because the tail lies beyond the end of the log,
            # as it does after a loss. Both are watched from here.
            tail.move(cursor, [])
        return portion(sound)

"""One client's look at a run: where it may join, what it sees, and what is mended on the way.

The log is what a client reads; the record says whether more will come. Where the two disagree (the
log lost its tail, vanished, or never got its end), the viewer finds out and has the end published
again, so that no stream ends without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import structlog

from machina.errors import DeadlineExceeded, Gone, ResumeAhead
from machina.eventlog.reader import EventLogReader, LogState, Subscription
from machina.events import Entry
from machina.ids import BEGINNING, EventId
from machina.runs.attempts import Attempts, cancelled
from machina.runs.closing import failure
from machina.runs.records import RunRecords
from machina.runs.run import Outcome, Run

log = structlog.get_logger(__name__)

AHEAD_WAIT_SECONDS: Final = 2.0
"""How long an id ahead of the log may be a lost tail that a new attempt is about to replace."""
CHECK_SECONDS: Final = 5.0
"""Silence after which a viewer asks the record whether the run still lives."""


class Viewing:
    """Opens views; one per API process."""

    def __init__(
        self,
        records: RunRecords,
        attempts: Attempts,
        reader: EventLogReader,
        *,
        holder: Callable[[], str],
    ) -> None:
        self.records = records
        self.attempts = attempts
        self.reader = reader
        self.holder = holder

    @asynccontextmanager
    async def open(
        self, run: Run, *, after: EventId = BEGINNING, fresh: bool = False
    ) -> AsyncIterator[View]:
        """A view of the run's events after `after`; `fresh` skips all checks for a run just made.

        Raises:
            ResumeAhead: `after` lies ahead of the log and no new attempt came within two seconds.
            Gone: the log of a finished run has expired.
            LogDown: the log cannot be asked.
        """
        at_end = False if fresh else await self._admit(run, after)
        async with self.reader.subscribe(run.id, after=after) as subscription:
            yield View(self, run, subscription, at_end=at_end)

    async def _admit(self, run: Run, after: EventId) -> bool:
        state = await self.reader.inspect(run.id)
        if run.is_final and not _has_end(state):
            state = await self._mend(run, state)
        if state.top is not None and state.top.is_terminal and after == state.top.id:
            return True
        if after > _newest(state, run):
            await self._wait_for_newer(run, after)
        return False

    async def _mend(self, run: Run, state: LogState) -> LogState:
        """Publishes the end of a finished run whose log does not show it."""
        if not state.exists and run.published:
            raise Gone(
                "The stream of this run has expired; its result is kept at "
                f"/execution/{run.kind}-run/{run.id}.",
                details={"run": f"/execution/{run.kind}-run/{run.id}"},
            )
        await self.publish_end(run)
        return await self.reader.inspect(run.id)

    async def publish_end(self, run: Run, seen: EventId = BEGINNING) -> Sequence[Entry]:
        """Waits a moment for the holder that just decided the end; then publishes in its place.

        An end that lies before `seen` is of an older telling: the newer one lost its tail.

        Returns the end where the log does not take it: for who is connected, that must do.
        """
        current: Run | None = run
        for _ in range(10):
            if current is None or current.published:
                break
            await asyncio.sleep(AHEAD_WAIT_SECONDS / 10)
            if _has_end(await self.reader.inspect(run.id), seen):
                return ()
            current = await self.records.get(run.id)
        if current is None or not current.is_final:
            return ()
        return (await self.attempts.repair(current, self.holder(), seen=seen)).entries

    async def _wait_for_newer(self, run: Run, after: EventId) -> None:
        state = LogState(exists=False, top=None)
        for _ in range(10):
            await asyncio.sleep(AHEAD_WAIT_SECONDS / 10)
            state = await self.reader.inspect(run.id)
            current = await self.records.get(run.id) or run
            if after <= _newest(state, current):
                return
        newest = str(state.top.id) if state.top is not None else None
        raise ResumeAhead(
            f"The event id {after} lies ahead of this stream, whose newest is {newest or 'none'}; "
            "resume after the last id you received from this run, or from the beginning.",
            field="Last-Event-ID",
            details={"newest": newest},
        )

    async def close_expired(self, run: Run) -> None:
        """Ends a run that waited too long or was cancelled unheard; there may be no worker to."""
        now = await self.attempts.clock()
        outcome = overdue(run, now)
        if outcome is not None:
            await self.attempts.close(run.id, outcome, self.holder())


class View:
    """The events of one run for one client, in order, to its end."""

    def __init__(
        self, viewing: Viewing, run: Run, subscription: Subscription, *, at_end: bool
    ) -> None:
        self.run = run
        self.at_end = at_end
        """The client already has the terminal event: nothing will follow."""
        self._viewing = viewing
        self._subscription = subscription
        self._silent_seconds = 0.0

    async def next(self, timeout: float) -> list[Entry]:
        """The entries that are there, at least one; or none after `timeout` seconds of silence.

        A batch that holds the terminal event ends with it. While Redis or the store is away there
        is only silence: the view goes on when they are back.
        """
        entries = await self._subscription.next(timeout)
        if entries:
            self._silent_seconds = 0.0
            return _up_to_end(entries)
        self._silent_seconds += timeout
        if self._subscription.take_disturbed() or self._silent_seconds >= CHECK_SECONDS:
            self._silent_seconds = 0.0
            return list(await self._check())
        return []

    async def _check(self) -> Sequence[Entry]:
        viewing = self._viewing
        run = await viewing.records.get(self.run.id)
        if run is None:
            return ()
        self.run = run
        if not run.is_final:
            await viewing.close_expired(run)
            return ()
        state = await viewing.reader.inspect(run.id)
        cursor = self._subscription.cursor
        return () if _has_end(state, cursor) else await viewing.publish_end(run, cursor)


def overdue(run: Run, now: datetime) -> Outcome | None:
    """How a waiting run must end, if it must: cancelled meanwhile, or queued for too long."""
    if run.cancel_requested:
        return cancelled()
    if run.started is None and now >= run.queue_deadline:
        return waited_too_long(run, now)
    return None


def waited_too_long(run: Run, now: datetime) -> Outcome:
    """The end of a run that no worker took in time."""
    waited = (now - run.created).total_seconds()
    return failure(
        DeadlineExceeded(
            f"No worker took the run within {waited:.0f} s; start workers for the queue "
            f"'{run.queue}' or raise MACHINA_QUEUE_TIMEOUT_SECONDS.",
            code="queue_timeout",
            retryable=True,
        )
    )


def _has_end(state: LogState, seen: EventId = BEGINNING) -> bool:
    return state.top is not None and state.top.is_terminal and state.top.id >= seen


def _newest(state: LogState, run: Run) -> EventId:
    """The highest id that a client may truthfully have seen."""
    top = state.top.id if state.top is not None else BEGINNING
    # Every id of an attempt before the current one is valid, whether or not the log still has it.
    earlier = EventId(run.attempt - 1, 999_999_999)
    return max(top, earlier)


def _up_to_end(entries: list[Entry]) -> list[Entry]:
    for index, entry in enumerate(entries):
        if entry.is_terminal:
            return entries[: index + 1]
    return entries

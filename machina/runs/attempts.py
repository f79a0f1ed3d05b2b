"""What the holder of an attempt may do: claim it, end it, give it back, or close a run unexecuted.

The order of an end is fixed: decide in the store, publish in the log, publish again until seen.
Whoever finds one half without the other repairs it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

import structlog

from machina.errors import AttemptsExhausted, Fenced, InternalError, QueueDown, StorageFull
from machina.eventlog.answers import Answer, AppendRefused
from machina.eventlog.reader import LogState
from machina.eventlog.writer import AttemptLog, EventLogWriter
from machina.events import Entry, Event, encode
from machina.ids import BEGINNING, EventId, RunId
from machina.observability.metrics import Metrics, make_metrics
from machina.queue.names import Queue
from machina.runs.closing import first_event, repair_event, terminal_events
from machina.runs.records import RunRecords
from machina.runs.run import Outcome, Run, RunStatus

log = structlog.get_logger(__name__)

REPAIR_SECONDS = 5.0
WAKE_AFTER = timedelta(seconds=5)
"""A wake-up that nobody answered within this time is sent again."""


class Enqueue(Protocol):
    async def enqueue_run(self, run_id: RunId, queue: Queue) -> None: ...


INFRASTRUCTURE: Final = frozenset((AttemptsExhausted.code, StorageFull.code))
"""Codes of runs that failed through no fault of their definition, caller or model."""


@dataclass(frozen=True, slots=True)
class LogLifetime:
    """How long a log lives, in seconds: while its run may live, and after its end."""

    live: float
    retention: float


class Repair(NamedTuple):
    """What became of publishing an end again."""

    is_published: bool
    entries: Sequence[Entry] = ()
    """The end as it would stand in the log, where the log did not take it."""


class Attempts:
    """Claims and closes runs in the name of one process."""

    def __init__(
        self,
        records: RunRecords,
        writer: EventLogWriter,
        enqueuer: Enqueue,
        inspect: Callable[[RunId], Awaitable[LogState]],
        clock: Callable[[], Awaitable[datetime]],
        lifetime: LogLifetime,
        metrics: Metrics | None = None,
        *,
        on_infrastructure_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.records = records
        self._writer = writer
        self._enqueuer = enqueuer
        self._inspect = inspect
        self.clock = clock
        self._lifetime = lifetime
        self.metrics = (metrics or make_metrics()).runs
        self._on_infrastructure_failure = on_infrastructure_failure

    async def claim(self, run_id: RunId, holder: str) -> Run | None:
        """The run, now held by `holder` as its next attempt; None when there is nothing to do."""
        return await self.records.claim(run_id, holder, await self.clock())

    def open_log(self, run: Run, on_refused: Callable[[Answer], None] | None = None) -> AttemptLog:
        """The log of the attempt that `run` was claimed as."""
        return self._open(run, on_refused=on_refused)

    async def decide(self, run: Run, outcome: Outcome) -> Run:
        """Ends the run in the store. Safe to repeat after an answer that was lost.

        Raises:
            Fenced: the run is somebody else's by now; nothing was changed.
        """
        now = await self.clock()
        decided = await self.records.decide(run, outcome, now)
        if decided is None:
            raise Fenced("The run has a newer attempt; this one ended nothing.")
        if outcome.code in INFRASTRUCTURE:
            self._on_infrastructure_failure()
        self.metrics.ended.labels(run.kind, decided.status).inc()
        self.metrics.seconds.labels(run.kind).observe((now - run.created).total_seconds())
        return decided

    async def publish(self, decided: Run, attempt_log: AttemptLog) -> bool:
        """Ends the log of a run that this attempt decided; call it once. False: not now."""
        try:
            await _append_all(attempt_log, terminal_events(decided, _outcome(decided)))
        except AppendRefused as refused:
            # Only the publication is open. The log is damaged or somebody else's: a repair goes
            # by the record under a new attempt, and does nothing where the end is in the log.
            log.warning("run.end_not_published", run_id=decided.id, answer=str(refused.answer))
            return (await self.repair(decided, decided.worker or "")).is_published
        return True

    async def hand_back(self, run: Run, *, spent: bool, wake: bool = True) -> bool:
        """Puts a running attempt back into the queue and wakes a worker, unless the caller does.

        A wake-up that cannot be sent is left to the reaper. False: the run was not ours any more.
        """
        now = await self.clock()
        if not await self.records.hand_back(run, now + WAKE_AFTER, spent=spent):
            return False
        if wake:
            await self.wake(run)
        return True

    async def enqueue(self, run: Run) -> None:
        """Sends the first wake-up. Raises `QueueDown`."""
        await self._enqueuer.enqueue_run(run.id, run.queue)

    async def wake(self, run: Run) -> None:
        """Sends a wake-up; a message is never the truth, so a failure only delays."""
        try:
            await self.enqueue(run)
        except QueueDown as down:
            log.warning("run.wake_failed", run_id=run.id, error=down.message)

    async def close(self, run_id: RunId, outcome: Outcome, holder: str) -> Run | None:
        """Ends a waiting run without executing it: claims it, writes its first and last events.

        None when the claim lost the race: somebody else executes or closed it.
        """
        run = await self.claim(run_id, holder)
        if run is None:
            return None
        attempt_log = self.open_log(run)
        try:
            if run.checkpoint is not None and not outcome.content:
                outcome.content = run.checkpoint.content
            await attempt_log.append(first_event(run))
            decided = await self.decide(run, outcome)
            if await self.publish(decided, attempt_log):
                await self.records.mark_published(decided)
            return decided
        finally:
            attempt_log.close()

    async def repair(self, run: Run, holder: str, *, seen: EventId = BEGINNING) -> Repair:
        """Publishes the end of a finished run again, from its record, as a new attempt.

        Does nothing but note it when the log shows an end that is not older than `seen`. What the
        log does not take within five seconds is returned, for a viewer that waits; the reaper tries
        again.
        """
        state = await self._inspect(run.id)
        if state.top is not None and state.top.is_terminal and state.top.id >= seen:
            await self.records.mark_published(run)
            return Repair(is_published=True)
        claimed = await self.records.claim_repair(run, holder)
        if claimed is None:
            return Repair(is_published=False)  # somebody else was faster
        outcome = _outcome(claimed)
        events = [repair_event(claimed, outcome)]
        if outcome.objects:
            events.append(Event("workflow_objects", "", {"objects": outcome.objects}))
        events += terminal_events(claimed, outcome)
        attempt_log = self._open(claimed, repair=True)
        try:
            async with asyncio.timeout(REPAIR_SECONDS):
                await _append_all(attempt_log, events)
        except (AppendRefused, TimeoutError) as refused:
            log.warning("run.repair_refused", run_id=run.id, error=str(refused))
            return Repair(is_published=False, entries=_entries(claimed, events))
        finally:
            attempt_log.close()
        await self.records.mark_published(claimed)
        self.metrics.repaired.inc()
        log.info("run.repaired", run_id=run.id, attempt=claimed.attempt)
        return Repair(is_published=True)

    def _open(
        self,
        run: Run,
        *,
        on_refused: Callable[[Answer], None] | None = None,
        repair: bool = False,
    ) -> AttemptLog:
        return self._writer.open(
            run.id,
            run.attempt,
            live_ttl_seconds=self._lifetime.live + run.limit_seconds,
            retention_seconds=self._lifetime.retention,
            on_refused=on_refused,
            repair=repair,
        )


def cancelled(content: str = "") -> Outcome:
    """How a run ends that somebody cancelled; `content` is what it had said."""
    return Outcome(RunStatus.CANCELLED, content=content)


def _outcome(decided: Run) -> Outcome:
    if decided.outcome is None:
        raise InternalError(f"Run {decided.id} has ended without an outcome.")
    return decided.outcome


def _entries(run: Run, events: Sequence[Event]) -> list[Entry]:
    ids = (EventId(run.attempt, seq) for seq in itertools.count(1))
    return [Entry(id, encode(id, event)) for id, event in zip(ids, events, strict=False)]


async def _append_all(attempt_log: AttemptLog, events: Sequence[Event]) -> None:
    for event in events:
        await attempt_log.append(event)
    await attempt_log.flush()

"""From a request to a record and back: submit, find, wait for, cancel a run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog

from machina.errors import IdempotencyMismatch, MachinaError, NotFound, QueueDown
from machina.eventlog.reader import EventLogReader
from machina.ids import BEGINNING, ObjectIdMint, RunId, is_object_id
from machina.queue.enqueue import QueueAmbiguous
from machina.queue.names import Queue
from machina.runs.attempts import WAKE_AFTER, Attempts, cancelled
from machina.runs.records import RunRecords
from machina.runs.run import Outcome, Run, RunKind, RunStatus
from machina.store.base import Duplicate, Sort

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller or a schedule asks for. `idempotency` is the hash of the key and its scope."""

    project: str
    principal: str
    kind: RunKind
    target_id: str
    target_name: str
    queue: Queue
    inputs: Mapping[str, Any]
    streamed: bool = False
    stream_workflows: bool = False
    cancel_on_disconnect: bool = False
    thread_id: str | None = None
    idempotency: str | None = None
    fingerprint: str | None = None
    generation: int = 0
    """One more than that of the run which schedules this one."""
    may_administer: bool = True
    """False for a client's key."""


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The clocks of a run, in seconds: streamed, in the background, waiting for a worker."""

    stream: float
    background: float
    queue: float


class Runs:
    """Runs as the API knows them."""

    def __init__(
        self,
        records: RunRecords,
        attempts: Attempts,
        reader: EventLogReader,
        ring_cancel: Callable[[RunId], Awaitable[None]],
        mint: ObjectIdMint,
        limits: RunLimits,
        *,
        holder: Callable[[], str],
    ) -> None:
        self._records = records
        self._attempts = attempts
        self._reader = reader
        self._ring_cancel = ring_cancel
        self._mint = mint
        self._limits = limits
        self._holder = holder

    async def find_joined(self, idempotency: str, fingerprint: str | None) -> Run | None:
        """The run an earlier request with the same key made.

        Raises:
            IdempotencyMismatch: the key came with another body.
        """
        run = await self._records.by_idempotency(idempotency)
        if run is not None and run.fingerprint != fingerprint:
            raise IdempotencyMismatch(
                "This Idempotency-Key was used with another body; send the same body or a new key.",
                field="Idempotency-Key",
            )
        return run

    async def submit(self, request: RunRequest) -> tuple[Run, bool]:
        """Records a run and wakes a worker. False: the run existed, made by the same key.

        Raises:
            IdempotencyMismatch: the key came with another body.
            QueueDown: the queue definitely refused; the record is closed and the key is free.
            StoreDown: nothing was recorded.
        """
        run = self._make_run(request, await self._attempts.clock())
        try:
            await self._records.insert(run)
        except Duplicate:
            if request.idempotency is None:
                raise
            joined = await self.find_joined(request.idempotency, request.fingerprint)
            if joined is None:
                raise
            return joined, False
        await self._enqueue(run)
        return run, True

    async def get(self, run_id: str, *, project: str, principal: str | None) -> Run:
        """The caller's run; `principal` None sees every run of the project.

        Raises:
            NotFound: unknown or foreign, with the same words.
        """
        run = await self._records.get(run_id) if is_object_id(run_id) else None
        foreign = run is None or run.project != project
        if run is None or foreign or (principal is not None and run.principal != principal):
            raise NotFound(f"There is no run '{run_id[:40]}'.", field="run_id")
        return run

    async def search(
        self,
        *,
        project: str,
        principal: str | None,
        kinds: Sequence[RunKind],
        query: Mapping[str, Any],
        sort: Sort,
        skip: int,
        limit: int,
    ) -> tuple[list[Run], int]:
        """One page of the caller's runs, and how many there are in all."""
        owned: dict[str, Any] = {"project": project, "kind": {"$in": list(kinds)}}
        if principal is not None:
            owned["principal"] = principal
        scoped = {"$and": [owned, query]} if query else owned
        page, total = await asyncio.gather(
            self._records.find(scoped, sort=sort, skip=skip, limit=limit),
            self._records.count(scoped),
        )
        return page, total

    async def cancel(self, run: Run) -> Run:
        """Cancels a run: a waiting one ends here, a running one is told to. Harmless to repeat."""
        if await self._records.request_cancel(run.id) is not None:
            closed = await self._attempts.close(run.id, cancelled(), self._holder())
            if closed is not None:
                return closed
            await self._ring_cancel(run.id)
        return await self._records.get(run.id) or run

    async def wait(self, run: Run, seconds: float) -> Run:
        """The newest record, as soon as the run has ended, or after `seconds`."""
        if run.is_final:
            return run
        try:
            async with asyncio.timeout(seconds):
                await self._until_ended(run)
        except TimeoutError:
            pass
        return await self._records.get(run.id) or run

    async def _until_ended(self, run: Run) -> None:
        async with self._reader.subscribe(run.id, after=BEGINNING) as subscription:
            while True:
                entries = await subscription.next(2.0)
                if entries and entries[-1].is_terminal:
                    return
                if not entries:
                    current = await self._records.get(run.id)
                    if current is None or current.is_final:
                        return

    def _make_run(self, request: RunRequest, now: datetime) -> Run:
        limits = self._limits
        return Run(
            id=RunId(self._mint(now.timestamp())),
            project=request.project,
            principal=request.principal,
            kind=request.kind,
            target_id=request.target_id,
            target_name=request.target_name,
            queue=request.queue,
            inputs=dict(request.inputs),
            created=now,
            queue_deadline=now + timedelta(seconds=limits.queue),
            wake_at=now + WAKE_AFTER,
            limit_seconds=limits.stream if request.streamed else limits.background,
            streamed=request.streamed,
            stream_workflows=request.stream_workflows,
            cancel_on_disconnect=request.cancel_on_disconnect,
            thread_id=request.thread_id or self._mint(now.timestamp()),
            thread_reserved=request.thread_id is None,
            idempotency=request.idempotency,
            fingerprint=request.fingerprint,
            generation=request.generation,
            may_administer=request.may_administer,
        )

    async def _enqueue(self, run: Run) -> None:
        try:
            await self._attempts.enqueue(run)
        except QueueAmbiguous as lost:
            # The message may be there. The run exists, so a retry by the caller would double it;
            # should the message be missing, the reaper sends another.
            log.warning("run.enqueue_ambiguous", run_id=run.id, error=lost.message)
        except QueueDown as down:
            await self._abandon(run, down)
            raise

    async def _abandon(self, run: Run, error: MachinaError) -> None:
        outcome = Outcome(RunStatus.FAILED, code=error.code, message=error.message, retryable=True)
        await self._records.abandon(run, outcome, await self._attempts.clock())

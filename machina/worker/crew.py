"""What executes runs in a worker process: the shared resources, the engine's doors, the table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

import structlog

from machina.connectors.registry import Connectors
from machina.connectors.scripts import open_scripts
from machina.engine import Emit, RunContext
from machina.errors import StoreDown, TaskFailed
from machina.eventlog import CancelListener
from machina.eventlog.answers import EventTooLarge
from machina.eventlog.writer import AttemptLog
from machina.events import Event
from machina.ids import RunId
from machina.observability.sampling import Readings
from machina.observability.supervision import Background
from machina.resources import Resources, open_resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.worker.app import Seat
from machina.worker.connecting import open_connectors
from machina.worker.documents import RunDocuments
from machina.worker.doors import AttemptDoors
from machina.worker.executions import Executions
from machina.worker.interrupts import Interrupt
from machina.worker.operations import Operations
from machina.worker.providers import Providers
from machina.worker.run_files import RunFiles
from machina.worker.secrets import Secrets
from machina.worker.uploads import Uploads

log = structlog.get_logger(__name__)


class WorkerCrew:
    """Executes runs with the real engine. Opened by `open_crew`, once per process."""

    def __init__(
        self,
        resources: Resources,
        providers: Providers,
        connectors: Connectors,
        uploads: Uploads,
        files: RunFiles,
    ) -> None:
        self._resources = resources
        self._providers = providers
        self._connectors = connectors
        self._uploads = uploads
        self._files = files
        self._secrets = Secrets(resources.store.secrets.values, clock=time.monotonic)
        self._operations = Operations(
            resources.runs, resources.store.definitions, resources.store.secrets
        )
        self._executions = Executions(
            resources.attempts,
            self._make_context,
            holder=resources.holder,
            max_attempts=resources.settings.max_attempts,
            are_files_here=files.are_here,
        )
        self._listener = CancelListener(
            resources.log_client, resources.log_keys, self._executions.cancel
        )

    @property
    def background(self) -> Mapping[str, Background]:
        """The loops a worker supervises."""
        return {
            "writer": self._resources.writer.run,
            "cancel-listener": self._listener.run,
            "cancel-watch": self._executions.watch_cancels,
            "reaper": self._resources.reaper.run,
        }

    @property
    def readings(self) -> Readings:
        """What the gauges show of any process that shares these resources."""
        return self._resources.readings("worker")

    def hold_as(self, worker_id: str) -> None:
        """Claims of now on are made under this id."""
        self._resources.holder.name = worker_id

    async def execute(self, run_id: RunId) -> None:
        """Claims a run and sees it through."""
        try:
            await self._executions.execute(run_id)
        finally:
            await self._forget_calls(run_id)

    def interrupt_all(self, reason: Interrupt) -> None:
        """Stops every attempt in flight."""
        self._executions.interrupt_all(reason)

    async def flush(self) -> None:
        """Waits for what the runs said to reach the log, up to two seconds."""
        await self._resources.writer.aclose()

    async def _forget_calls(self, run_id: RunId) -> None:
        """Drops what connectors keep of a run; its files stay where a new attempt may need them."""
        if self._executions.is_running(run_id) or not self._connectors.keeps(run_id):
            return
        try:
            run = await self._resources.attempts.records.get(run_id)
            is_over = run is None or run.is_final
        except StoreDown as down:
            log.warning("connectors.run_kept", run_id=run_id, error=down.message)
            is_over = False
        if is_over:
            await self._connectors.forget(run_id)
        elif not self._executions.is_running(run_id):
            await self._connectors.leave(run_id)

    def _make_context(self, run: Run, attempt_log: AttemptLog) -> RunContext:
        secrets = self._secrets.of_run(run.project, eager=run.checkpoint is not None)
        doors = AttemptDoors(
            run,
            self._resources.attempts.records,
            self._resources.store.definitions,
            self._providers,
            self._connectors,
            secrets,
            self._operations.of_run(run),
            RunDocuments(run, self._resources.store.documents),
            self._uploads,
            self._files,
        )
        return RunContext(
            run_id=run.id,
            project=run.project,
            doors=doors,
            emit=_emit_into(attempt_log),
            streamed=run.streamed,
            stream_workflows=run.stream_workflows,
            text=run.checkpoint.content if run.checkpoint is not None else "",
            tokens=run.tokens,
            secrets=secrets,
            tasks=run.tasks,
            repeated=run.may_have_repeated,
            in_doubt=run.attempt > 1,
        )


def _emit_into(attempt_log: AttemptLog) -> Emit:
    async def emit(event: Event) -> None:
        try:
            await attempt_log.append(event)
        except EventTooLarge as error:
            raise TaskFailed(error.message, code=error.code) from error

    return emit


@asynccontextmanager
async def open_crew(
    seat: Seat, make_providers: Callable[[Settings], Providers] = Providers
) -> AsyncIterator[WorkerCrew]:
    """Opens what executing runs needs; closes it after the last run."""
    async with (
        open_resources(
            seat.settings, process="worker", may_commit=seat.may_commit, metrics=seat.metrics
        ) as resources,
        aclosing(await asyncio.to_thread(make_providers, seat.settings)) as providers,
        open_scripts(seat.settings) as scripts,
        open_connectors(seat.settings, providers, scripts) as connectors,
    ):
        seat.presence["scripts"] = scripts.describe()
        uploads = Uploads(resources.store.blobs, scripts.directory)
        files = RunFiles(scripts.directory)
        yield WorkerCrew(resources, providers, connectors, uploads, files)

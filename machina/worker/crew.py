"""What executes runs in a worker process: the shared resources, the engine's doors, the table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

from machina.engine import Emit, RunContext
from machina.errors import TaskFailed
from machina.eventlog import CancelListener
from machina.eventlog.answers import EventTooLarge
from machina.eventlog.writer import AttemptLog
from machina.events import Event
from machina.ids import RunId
from machina.observability.sampling import Readings
from machina.observability.supervision import Background
from machina.resources import Resources, open_resources
from machina.runs.run import Run
from machina.worker.app import Seat
from machina.worker.doors import AttemptDoors
from machina.worker.executions import Executions
from machina.worker.interrupts import Interrupt
from machina.worker.providers import Providers


class WorkerCrew:
    """Executes runs with the real engine. Opened by `open_crew`, once per process."""

    def __init__(self, resources: Resources, providers: Providers) -> None:
        self._resources = resources
        self._providers = providers
        self._executions = Executions(
            resources.attempts,
            self._make_context,
            holder=resources.holder,
            max_attempts=resources.settings.max_attempts,
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
        await self._executions.execute(run_id)

    def interrupt_all(self, reason: Interrupt) -> None:
        """Stops every attempt in flight."""
        self._executions.interrupt_all(reason)

    async def flush(self) -> None:
        """Waits for what the runs said to reach the log, up to two seconds."""
        await self._resources.writer.aclose()

    def _make_context(self, run: Run, attempt_log: AttemptLog) -> RunContext:
        doors = AttemptDoors(
            run,
            self._resources.attempts.records,
            self._resources.store.definitions,
            self._providers.provider_for,
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
        )


def _emit_into(attempt_log: AttemptLog) -> Emit:
    async def emit(event: Event) -> None:
        try:
            await attempt_log.append(event)
        except EventTooLarge as error:
            raise TaskFailed(error.message, code=error.code) from error

    return emit


@asynccontextmanager
async def open_crew(seat: Seat) -> AsyncIterator[WorkerCrew]:
    """Opens what executing runs needs; closes it after the last run."""
    async with (
        open_resources(
            seat.settings, process="worker", may_commit=seat.may_commit, metrics=seat.metrics
        ) as resources,
        aclosing(Providers(seat.settings)) as providers,
    ):
        yield WorkerCrew(resources, providers)

"""The worker process: a lease, an intake, the runs in flight, a stop that leaves nothing behind.

What executes runs comes in through `execute_factory`, so this file knows neither engine nor store.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from machina.errors import SettingsInvalid
from machina.ids import RunId, make_mint
from machina.observability.metrics import Metrics, make_metrics
from machina.observability.sampling import Readings, Sampler
from machina.observability.supervision import Background, Supervisor
from machina.observability.watchdog import LoopWatchdog
from machina.queue.broker import DoorbellBroker, make_broker
from machina.queue.names import Queue
from machina.queue.slots import Slots
from machina.settings import Settings
from machina.store import open_store
from machina.worker.in_flight import InFlight
from machina.worker.intake import Intake
from machina.worker.interrupts import Interrupt
from machina.worker.lease import LeaseKeeper, Leases, OpenLeases, presence

log = structlog.get_logger(__name__)

HAND_BACK_SECONDS: Final = 5.0
"""How long running attempts may take to go back into the queue when the process stops."""


class Crew(Protocol):
    """What executes the runs of this process."""

    @property
    def background(self) -> Mapping[str, Background]:
        """Loops to supervise while the process lives: writer, cancel listener, reaper, …"""

    @property
    def readings(self) -> Readings:
        """What the gauges show of it."""

    def hold_as(self, worker_id: str) -> None:
        """Claims of now on are made under this id."""

    async def execute(self, run_id: RunId) -> None:
        """Claims a run and sees it through; returns at once when there is nothing to do."""

    def interrupt_all(self, reason: Interrupt) -> None:
        """Stops every attempt in flight."""

    async def flush(self) -> None:
        """Brings what the runs said to the log, as far as that is possible within a bound."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What the process lends to its crew."""

    settings: Settings
    may_commit: Callable[[], bool]
    """Whether the lease is fresh: while it is not, nothing may be written to a log."""
    supervisor: Supervisor
    metrics: Metrics | None = None
    presence: dict[str, Any] = field(default_factory=dict)
    """What the row of this worker says about it; what the crew adds is there from the start."""


ExecuteFactory = Callable[[Seat], AbstractAsyncContextManager[Crew]]
"""Opens what executing runs needs, and closes it after the last run."""


async def run_worker(
    settings: Settings,
    *,
    queues: Sequence[Queue],
    threads: int,
    stop: asyncio.Event,
    execute_factory: ExecuteFactory,
    open_leases: OpenLeases | None = None,
    metrics: Metrics | None = None,
) -> None:
    """Executes runs of `queues`, at most `threads` at once, until `stop` is set.

    Then it takes no more, hands running attempts back, flushes, and releases its lease.

    Args:
        open_leases: Opens the store of the lease; by default the one of the settings.
        metrics: Where everything here is counted; by default in metrics of its own.

    Raises:
        SettingsInvalid: no Redis is configured.
    """
    if settings.redis_url is None:
        raise SettingsInvalid("REDIS_URL is not set; name the Redis of the queue.")
    process = _WorkerProcess(
        settings, settings.redis_url, queues, threads, open_leases, metrics or make_metrics()
    )
    await process.run(execute_factory, stop)


class _WorkerProcess:
    """The parts of one worker process and the order in which they start and stop."""

    def __init__(
        self,
        settings: Settings,
        redis_url: str,
        queues: Sequence[Queue],
        threads: int,
        open_leases: OpenLeases | None,
        metrics: Metrics,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._redis_url = redis_url
        self._queues = queues
        self._slots = Slots(threads)
        self._metrics = metrics
        self._supervisor = Supervisor(metrics=metrics)
        self._crew: Crew | None = None
        self._presence = presence(queues, threads)
        self._keeper = LeaseKeeper(
            open_leases or functools.partial(_open_leases, settings),
            self._presence,
            mint=_mint_worker_id,
            lease_seconds=settings.lease_seconds,
            on_registered=_on_loop(loop, self._hold_as),
            on_lost=_on_loop(loop, self._abandon),
        )

    async def run(self, execute_factory: ExecuteFactory, stop: asyncio.Event) -> None:
        seat = Seat(
            self._settings,
            self._keeper.is_fresh,
            self._supervisor,
            self._metrics,
            self._presence,
        )
        try:
            async with execute_factory(seat) as self._crew:
                await self._work(self._crew, stop)
        finally:
            await asyncio.to_thread(self._keeper.stop)
        log.info("worker.stopped")

    async def _work(self, crew: Crew, stop: asyncio.Event) -> None:
        in_flight = InFlight(crew.execute, self._slots)
        intake = Intake(self._make_broker, self._queues, in_flight.accept)
        self._keeper.start()
        try:
            for name, function in crew.background.items():
                self._supervisor.start(name, function)
            on_tick = self._metrics.process.loop_lag.labels("worker").observe
            self._supervisor.start("watchdog", LoopWatchdog(on_tick=on_tick).run)
            self._supervisor.start("intake", intake.run)
            readings = {**crew.readings, **self._readings(intake, in_flight)}
            self._supervisor.start("sampler", Sampler(self._metrics, readings).run)
            log.info("worker.started", queues=list(self._queues), threads=self._slots.total)
            await stop.wait()
        finally:
            await self._drain(intake, in_flight, crew)
            await self._supervisor.aclose()

    async def _drain(self, intake: Intake, in_flight: InFlight, crew: Crew) -> None:
        log.info("worker.draining", runs=len(in_flight))
        intake.close()
        self._slots.close()
        in_flight.close()
        stopping = asyncio.create_task(self._stop_intake(intake))
        # What was handed over before the intake closed becomes a task in the loop's next turn, and
        # each task must have begun, or it could not hand its run back.
        for _ in range(3):
            await asyncio.sleep(0)
        crew.interrupt_all(Interrupt.DRAIN)
        left = await in_flight.wait_empty(HAND_BACK_SECONDS)
        if left:
            log.error("worker.hand_back_incomplete", runs=left)
            await in_flight.cancel()
        try:
            await crew.flush()
        finally:
            await stopping

    async def _stop_intake(self, intake: Intake) -> None:
        await self._supervisor.stop("intake")
        await intake.stop()

    def _readings(self, intake: Intake, in_flight: InFlight) -> Readings:
        shown = self._metrics
        return {
            shown.runs.in_flight: lambda: len(in_flight),
            shown.runs.slots: lambda: self._slots.total,
            shown.process.redis_connections.labels("worker", "broker"): intake.redis_connections,
        }

    def _make_broker(self) -> DoorbellBroker:
        return make_broker(
            self._redis_url,
            self._settings.key_prefix,
            slots=self._slots,
            may_fetch=self._keeper.is_fresh,
        )

    def _hold_as(self, worker_id: str) -> None:
        if self._crew is not None:
            self._crew.hold_as(worker_id)

    def _abandon(self, worker_id: str) -> None:
        if self._crew is not None:
            self._crew.interrupt_all(Interrupt.FENCED)


def _on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[str], None]
) -> Callable[[str], None]:
    """The function as another thread may call it: in the loop, in the order of the calls."""

    def schedule(argument: str) -> None:
        try:
            loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            log.debug("worker.loop_closed")

    return schedule


def _mint_worker_id() -> str:
    return f"worker-{make_mint()(0)[8:]}"


@asynccontextmanager
async def _open_leases(settings: Settings) -> AsyncIterator[Leases]:
    async with open_store(settings) as store:
        yield store.leases

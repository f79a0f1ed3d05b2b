"""Schedulers of one deployment over a real store, with a clock and a queue that the test owns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from machina.errors import QueueDown, StoreDown
from machina.eventlog import EventLogReader, EventLogWriter
from machina.ids import RunId, make_mint
from machina.observability.metrics import make_metrics
from machina.queue.names import Queue
from machina.runs.attempts import Attempts, LogLifetime
from machina.runs.lifecycle import RunLimits, Runs
from machina.runs.planned import PlannedRuns
from machina.runs.records import RunRecords
from machina.runs.run import Run
from machina.scheduler.loop import Scheduler
from machina.scheduler.reconcile import Policy
from machina.store.base import Backend, Collection
from machina.store.definitions import DefinitionStore
from machina.store.schedules import Schedule, ScheduleStore
from tests.measuring import measured

PROJECT = "default"
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Killed(BaseException):
    """The process is gone; nothing that it would have done happens."""


class Hazards:
    """Kills a process before or after any call that it makes, now and then; then it stays dead."""

    def __init__(self, chance: float = 0.0, seed: int = 0) -> None:
        self._chance = chance
        self._random = random.Random(seed)
        self._countdown = -1
        self.is_dead = False
        self.down = False
        """The store answers nothing."""

    def kill_at(self, countdown: int) -> None:
        """Kills it after so many more moments; never for a negative number."""
        self._countdown = countdown

    def meet(self) -> None:
        if self._countdown >= 0:
            self._countdown -= 1
            self.is_dead = self.is_dead or self._countdown < 0
        self.is_dead = self.is_dead or self._random.random() < self._chance
        if self.is_dead:
            raise Killed
        if self.down:
            raise StoreDown

    async def around(self, call: Callable[[], Awaitable[Any]]) -> Any:
        self.meet()
        answer = await call()
        self.meet()
        return answer


class _HazardousCollection:
    def __init__(self, collection: Collection, hazards: Hazards) -> None:
        self._collection = collection
        self._hazards = hazards

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collection, name)
        return lambda *args, **options: self._hazards.around(lambda: method(*args, **options))


class _HazardousBackend:
    def __init__(self, backend: Backend, hazards: Hazards) -> None:
        self._backend = backend
        self._hazards = hazards

    def collection(self, name: str) -> Collection:
        return cast(
            "Collection", _HazardousCollection(self._backend.collection(name), self._hazards)
        )

    async def now(self) -> datetime:
        return await self._backend.now()


class World:
    """The deployment: what is installed, what was fired, and as many schedulers as wanted."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.now = NOON
        self.monotonic = 0.0
        self.store = ScheduleStore(backend)
        self.definitions = DefinitionStore(backend, make_mint())
        self.records = RunRecords(backend)
        self.queued: list[tuple[str, Queue]] = []
        self.queue_error: QueueDown | None = None
        self.metrics = make_metrics()

    async def clock(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        """Lets time pass, for the store's clock and the processes' own."""
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds

    def scheduler(self, policy: Policy | None = None, hazards: Hazards | None = None) -> Scheduler:
        """A scheduler process."""
        hazards = hazards or Hazards()
        backend = cast("Backend", _HazardousBackend(self.backend, hazards))
        return Scheduler(
            ScheduleStore(backend),
            DefinitionStore(backend, make_mint()),
            self.runs(backend, hazards),
            policy or Policy(min_seconds=1),
            self.clock,
            metrics=self.metrics,
            monotonic=lambda: self.monotonic,
        )

    def runs(self, backend: Backend | None = None, hazards: Hazards | None = None) -> Runs:
        """What records and queues runs in one process."""
        world, dangers = self, hazards or Hazards()

        class InMemoryQueue:
            async def enqueue_run(self, run_id: RunId, queue: Queue) -> None:
                dangers.meet()
                if world.queue_error is not None:
                    raise world.queue_error
                world.queued.append((run_id, queue))
                dangers.meet()

        attempts = Attempts(
            RunRecords(backend or self.backend),
            cast("EventLogWriter", None),  # starting a run writes no log
            InMemoryQueue(),
            cast("Any", None),
            self.clock,
            LogLifetime(live=60, retention=60),
            self.metrics,
        )
        return Runs(
            attempts.records,
            attempts,
            cast("EventLogReader", None),
            cast("Any", None),
            make_mint(),
            RunLimits(stream=60, background=60, queue=60),
            holder=lambda: "scheduler-test",
        )

    def planned(self) -> PlannedRuns:
        """What the API starts schedules with."""
        return PlannedRuns(self.store, self.definitions, self.runs())

    async def install(self, name: str, project: str = PROJECT, **body: Any) -> str:
        """Installs an agent; `context_agent` stands for `context-agent`."""
        fields = {key.replace("_", "-"): value for key, value in body.items()}
        definition = {"name": name, "workflows": [{"name": "flow"}], **fields}
        id, _ = await self.definitions.save(project, "agent", definition)
        # Dated by the test's clock, as everything else.
        await self.backend.collection("agents").find_and_update(
            {"_id": id}, {"$set": {"updated": self.now}}
        )
        return id

    async def frequent(self, name: str, minutes: Any, **context: Any) -> str:
        """Installs an agent with a frequency."""
        return await self.install(name, context={"config-frequency": minutes, **context})

    async def turn(self, *schedulers: Scheduler, rounds: int = 50) -> float:
        """Lets schedulers look until there is nothing to do now; the pause they ask for."""
        for _ in range(rounds):
            pauses = await asyncio.gather(*(scheduler.tick() for scheduler in schedulers))
            if min(pauses) > 0:
                return min(pauses)
        raise AssertionError("they never come to rest")

    async def until(self, moment: datetime, *schedulers: Scheduler) -> None:
        """Lets time pass and the schedulers work until `moment`."""
        while True:
            pause = await self.turn(*schedulers)
            left = (moment - self.now).total_seconds()
            if left <= 0:
                return
            self.pass_seconds(min(pause, left))

    async def the(self, name: str, project: str = PROJECT) -> Schedule:
        """The schedule of this name."""
        found = await self.store.find(project, name)
        assert found is not None, f"no schedule {name}"
        return found

    async def names(self) -> list[str]:
        """The names of all schedules."""
        rows, _ = await self.store.search(PROJECT, {}, limit=500)
        return [row.name for row in rows]

    async def started(self, target: str | None = None) -> list[Run]:
        """The runs that were started, the oldest first."""
        query = {} if target is None else {"target_name": target}
        return await self.records.find(query, sort=(("created", 1),))

    async def seconds(self, target: str) -> list[float]:
        """When runs of a target were started, in seconds after noon."""
        return [(run.created - NOON).total_seconds() for run in await self.started(target)]

    async def finish_runs(self) -> None:
        """Ends every run that is open."""
        await self.backend.collection("runs").update_many(
            {"status": {"$in": ["scheduled", "running"]}}, {"$set": {"status": "executed"}}
        )

    def ticks(self, outcome: str) -> float:
        """What the metrics counted."""
        return measured(self.metrics.source)[f'machina_schedule_ticks_total{{outcome="{outcome}"}}']

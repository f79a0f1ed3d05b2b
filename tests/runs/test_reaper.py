"""The reaper believes in a death only when the store's clock and its own eyes agree."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from machina.errors import StoreDown
from machina.observability.metrics import Metrics, make_metrics
from machina.resources import Resources
from machina.runs.attempts import Attempts, LogLifetime, cancelled
from machina.runs.reaper import SWEEP_EVERY, Reaper
from machina.runs.run import Run
from machina.settings import Settings
from machina.store.leases import LeaseStore
from tests.fleet import ask, get_run, watch
from tests.measuring import measured

LEASE = 4.0


@dataclass
class Clocks:
    """The store's clock and the process's own; they need not agree."""

    started: datetime
    store: float = 0.0
    own: float = 0.0
    is_down: bool = False
    woken: list[str] = field(default_factory=list)

    def pass_(self, seconds: float) -> None:
        self.store += seconds
        self.own += seconds

    async def now(self) -> datetime:
        if self.is_down:
            raise StoreDown("away")
        return self.started + timedelta(seconds=self.store)

    async def enqueue_run(self, run_id: str, queue: str) -> None:
        self.woken.append(run_id)


@pytest.fixture
async def clocks(api: Resources) -> Clocks:
    return Clocks(await api.store.now())


@pytest.fixture
def reaper(api: Resources, clocks: Clocks) -> Reaper:
    return make_reaper(api, clocks)


def make_reaper(
    api: Resources, clocks: Clocks, holder: str = "reaper-1", metrics: Metrics | None = None
) -> Reaper:
    attempts = Attempts(
        api.attempts.records,
        api.writer,
        clocks,
        api.reader.inspect,
        clocks.now,
        LogLifetime(live=60, retention=60),
        metrics,
    )
    return Reaper(
        attempts,
        LeaseStore(api.store.backend, monotonic=lambda: clocks.own),
        holder=lambda: holder,
        lease_seconds=LEASE,
        max_attempts=3,
        monotonic=lambda: clocks.own,
    )


async def held_by(api: Resources, worker: str) -> Run:
    """A run that `worker` claimed."""
    run, _ = await api.runs.submit(ask("hello"))
    claimed = await api.attempts.claim(run.id, worker)
    assert claimed is not None
    return claimed


async def tick(reaper: Reaper, clocks: Clocks, seconds: float) -> None:
    """Time passes in ticks of half a second."""
    for _ in range(int(seconds * 2)):
        clocks.pass_(0.5)
        await reaper.tick()
        await reaper.settle()


async def test_the_runs_of_a_dead_worker_go_back_to_the_queue_and_spend_an_attempt(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    await api.store.leases.register("worker-1", {})
    run = await held_by(api, "worker-1")

    await tick(reaper, clocks, LEASE + 1)

    back = await get_run(api, run)
    assert (back.status, back.attempts_spent, back.worker) == ("scheduled", 1, None)
    assert clocks.woken == [run.id]
    assert await api.store.leases.workers() == []


async def test_a_worker_that_beats_keeps_its_runs(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    await api.store.leases.register("worker-1", {})
    run = await held_by(api, "worker-1")

    for _ in range(10):
        await tick(reaper, clocks, 1)
        assert await api.store.leases.renew("worker-1")

    assert (await get_run(api, run)).status == "running"


async def test_a_jump_of_the_stores_clock_makes_no_orphan(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    await api.store.leases.register("worker-1", {})
    run = await held_by(api, "worker-1")
    await tick(reaper, clocks, 1)

    clocks.store += 3_600
    await tick(reaper, clocks, 1)

    assert (await get_run(api, run)).status == "running"


async def test_an_outage_of_the_store_makes_no_orphan(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    await api.store.leases.register("worker-1", {})
    run = await held_by(api, "worker-1")
    await tick(reaper, clocks, 1)

    clocks.is_down = True
    looking = asyncio.create_task(reaper.run())
    await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.wait([looking])
    clocks.pass_(LEASE)
    clocks.is_down = False
    await tick(reaper, clocks, 1)

    assert (await get_run(api, run)).status == "running"


async def test_a_reaper_that_stood_still_itself_believes_in_no_death(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    await api.store.leases.register("worker-1", {})
    run = await held_by(api, "worker-1")
    await tick(reaper, clocks, 1)

    clocks.pass_(2 * LEASE)
    await tick(reaper, clocks, 1)

    assert (await get_run(api, run)).status == "running"


async def test_a_run_whose_holder_has_no_lease_is_taken_back(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    run = await held_by(api, "api-that-died-while-closing")

    await tick(reaper, clocks, LEASE + 2 * SWEEP_EVERY)

    assert (await get_run(api, run)).status == "scheduled"


async def test_the_last_attempt_that_dies_ends_the_run(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    run, _ = await api.runs.submit(ask("hello"))
    for number in range(1, 4):
        await api.store.leases.register(f"worker-{number}", {})
        assert await api.attempts.claim(run.id, f"worker-{number}")
        await tick(reaper, clocks, LEASE + 1)

    events = await watch(api, run)
    assert events[-1]["metadata"]["error"]["code"] == "attempts_exhausted"
    assert (await get_run(api, run)).attempts_spent == 3


async def test_a_death_and_what_it_left_behind_are_counted(api: Resources, clocks: Clocks) -> None:
    metrics = make_metrics()
    await api.store.leases.register("worker-1", {})
    for _ in range(2):
        await held_by(api, "worker-1")

    await tick(make_reaper(api, clocks, metrics=metrics), clocks, LEASE + 1)

    numbers = measured(metrics.source)
    assert numbers["machina_workers_buried_total"] == 1
    assert numbers["machina_attempts_reclaimed_total"] == 2


async def test_a_waiting_run_is_woken_again_ever_more_rarely(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    run, _ = await api.runs.submit(ask("hello"))

    await tick(reaper, clocks, 60)

    assert set(clocks.woken) == {run.id}
    assert 2 <= len(clocks.woken) <= 4


async def test_a_run_that_waited_too_long_times_out(
    api: Resources, reaper: Reaper, clocks: Clocks, settings: Settings
) -> None:
    run, _ = await api.runs.submit(ask("hello"))
    clocks.pass_(settings.queue_timeout_seconds)

    await tick(reaper, clocks, 4)

    events = await watch(api, run)
    assert [event["type"] for event in events] == ["start", "content", "error", "done"]
    assert events[-2]["metadata"]["code"] == "queue_timeout"
    assert events[-1]["metadata"]["status"] == "timeout"


async def test_an_end_that_its_dead_holder_did_not_publish_is_published(
    api: Resources, reaper: Reaper, clocks: Clocks
) -> None:
    run = await held_by(api, "worker-1")
    log = api.attempts.open_log(run)
    log.close()
    await api.attempts.decide(run, cancelled("so far"))

    await tick(reaper, clocks, 10)

    events = await watch(api, run)
    assert events[-1]["metadata"]["status"] == "cancelled"
    assert events[-1]["metadata"]["content"] == "so far"
    assert (await get_run(api, run)).published


async def test_one_of_several_reapers_acts_and_another_takes_over(
    api: Resources, clocks: Clocks
) -> None:
    first, second = make_reaper(api, clocks, "one"), make_reaper(api, clocks, "two")

    assert await first.tick()
    assert not await second.tick()
    for _ in range(6):
        clocks.pass_(0.5)
        elected = await second.tick()

    assert elected
    assert not await first.tick()

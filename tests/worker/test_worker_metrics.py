"""What a worker counts of the runs it executes, leaves and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from machina.observability.metrics import Metrics, make_metrics
from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.worker.crew import WorkerCrew
from machina.worker.interrupts import Interrupt
from tests.fleet import ask, get_run, open_worker, until_status, watch
from tests.measuring import measured
from tests.services import RedisServer

QUICK = "[[script: tokens=20 delay_ms=0]]"
ENDLESS = "[[script: tokens=2000 delay_ms=20]]"


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics()


@pytest.fixture
async def crew(settings: Settings, api: Resources, metrics: Metrics) -> AsyncIterator[WorkerCrew]:
    async with open_worker(settings, metrics=metrics) as opened:
        yield opened


def counted(metrics: Metrics, family: str) -> dict[str, float]:
    """The numbers of a family that are not zero, by their labels."""
    name = f"machina_{family}"
    return {
        series.removeprefix(name): value
        for series, value in measured(metrics.source).items()
        if series.partition("{")[0] == name and value
    }


async def begin(api: Resources, crew: WorkerCrew, text: str) -> tuple[Run, asyncio.Task[None]]:
    """A run whose answer is under way."""
    run, _ = await api.runs.submit(ask(text))
    task = asyncio.create_task(crew.execute(run.id))
    await watch(api, run, until="content")
    return run, task


async def test_a_run_that_ends_is_counted_and_timed_once(
    api: Resources, crew: WorkerCrew, metrics: Metrics
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    await crew.execute(run.id)
    await crew.execute(run.id)

    assert counted(metrics, "runs_ended_total") == {'{kind="agent",outcome="executed"}': 1}
    assert counted(metrics, "run_seconds_count") == {'{kind="agent"}': 1}
    queue = '{queue="streaming_priority"}'
    assert counted(metrics, "queue_wait_seconds_count") == {queue: 1}
    run = await get_run(api, run)
    assert run.started is not None
    assert run.finished is not None
    assert counted(metrics, "run_seconds_sum")['{kind="agent"}'] == pytest.approx(
        (run.finished - run.created).total_seconds(), abs=0.002
    )
    assert counted(metrics, "queue_wait_seconds_sum").get(queue, 0) == pytest.approx(
        (run.started - run.created).total_seconds(), abs=0.002
    )
    assert counted(metrics, "commit_seconds_count")[""] >= 1
    assert counted(metrics, "append_answers_total") == {}
    assert counted(metrics, "store_call_seconds_count")['{call="find_and_update"}'] >= 2


async def test_a_run_that_is_closed_unexecuted_counts_where_it_was_closed_and_as_no_wait(
    api: Resources, crew: WorkerCrew, metrics: Metrics
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    await api.runs.cancel(run)
    await crew.execute(run.id)

    assert counted(metrics, "runs_ended_total") == {}
    closer = api.metrics
    assert counted(closer, "runs_ended_total") == {'{kind="agent",outcome="cancelled"}': 1}
    assert counted(closer, "queue_wait_seconds_count") == {}


async def test_an_attempt_handed_back_counts_as_left_and_its_successor_as_no_wait(
    api: Resources, crew: WorkerCrew, metrics: Metrics
) -> None:
    run, task = await begin(api, crew, ENDLESS)
    crew.interrupt_all(Interrupt.DRAIN)
    await task
    assert counted(metrics, "attempts_left_total") == {'{reason="drain"}': 1}
    assert counted(metrics, "runs_ended_total") == {}

    second = asyncio.create_task(crew.execute(run.id))
    await until_status(api, run, "running")
    await api.runs.cancel(run)
    await second
    assert counted(metrics, "runs_ended_total") == {'{kind="agent",outcome="cancelled"}': 1}
    assert sum(counted(metrics, "queue_wait_seconds_count").values()) == 1


async def test_a_zombie_counts_its_fencing_and_the_logs_answer(
    api: Resources, crew: WorkerCrew, metrics: Metrics, settings: Settings
) -> None:
    run, zombie = await begin(api, crew, ENDLESS)
    assert await api.attempts.hand_back(await get_run(api, run), spent=True)
    async with open_worker(settings, "worker-2") as other:
        second = asyncio.create_task(other.execute(run.id))
        await asyncio.wait_for(zombie, 3)
        await api.runs.cancel(run)
        await second
    assert counted(metrics, "attempts_left_total") == {'{reason="fenced"}': 1}
    assert counted(metrics, "append_answers_total") == {'{answer="FENCED"}': 1}
    assert counted(metrics, "runs_ended_total") == {}


async def test_a_log_that_is_lost_counts_as_that(
    api: Resources, crew: WorkerCrew, metrics: Metrics, redis_server: RedisServer
) -> None:
    run, first = await begin(api, crew, ENDLESS)
    with redis_server.connect() as client:
        client.delete(api.log_keys.events(run.id))
    await asyncio.wait_for(first, 3)
    assert counted(metrics, "attempts_left_total") == {'{reason="log_lost"}': 1}
    assert counted(metrics, "append_answers_total") == {'{answer="LOST"}': 1}


async def test_an_end_that_is_published_again_counts_as_a_repair(
    api: Resources, crew: WorkerCrew, redis_server: RedisServer
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    await crew.execute(run.id)
    whole = await watch(api, run)
    assert counted(api.metrics, "runs_repaired_total") == {}
    with redis_server.connect() as client:
        client.xdel(api.log_keys.events(run.id), *(event["id"] for event in whole[-2:]))
    await watch(api, await get_run(api, run))
    assert counted(api.metrics, "runs_repaired_total") == {"": 1}

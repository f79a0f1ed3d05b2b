"""One attempt from claim to terminal event: every way it can end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from machina.errors import StoreDown
from machina.events import decode
from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.worker.crew import WorkerCrew
from machina.worker.interrupts import Interrupt
from tests.fleet import (
    ask,
    assert_sound,
    get_run,
    install_hello,
    make_settings,
    open_process,
    open_worker,
    shown_text,
    types_of,
    until_status,
    watch,
)
from tests.services import RedisServer

QUICK = "[[script: tokens=20 delay_ms=0]]"
ENDLESS = "[[script: tokens=2000 delay_ms=20]]"


@pytest.fixture
def impatient(tmp_path: Path, redis_server: RedisServer) -> Settings:
    return make_settings(tmp_path, redis_server.url, stream_timeout_seconds=0.3)


async def begin(api: Resources, worker: WorkerCrew, text: str) -> tuple[Run, asyncio.Task[None]]:
    """A run whose answer is under way."""
    run, _ = await api.runs.submit(ask(text))
    task = asyncio.create_task(worker.execute(run.id))
    await watch(api, run, until="content")
    return run, task


async def test_a_run_streams_and_ends_executed(api: Resources, worker: WorkerCrew) -> None:
    run, _ = await api.runs.submit(ask(QUICK))

    await worker.execute(run.id)

    events = await watch(api, run)
    assert_sound(events)
    assert types_of(events) == ["start", "status_update", "content", "done"]
    done = events[-1]["metadata"]
    assert done["status"] == "executed"
    assert done["content"] == shown_text(events) != ""
    assert done["thread_id"] == events[0]["metadata"]["thread_id"] == run.thread_id
    record = await get_run(api, run)
    assert record.status == "executed"
    assert record.published
    assert record.tokens["total_tokens"] > 0
    assert [step["status"] for step in record.steps] == ["executed", "executed"]


async def test_workflow_events_are_sent_when_they_are_asked_for(
    api: Resources, worker: WorkerCrew
) -> None:
    run, _ = await api.runs.submit(ask(QUICK, stream_workflows=True))

    await worker.execute(run.id)

    seen = types_of(await watch(api, run))
    assert seen.count("workflow_start") == seen.count("workflow_complete") == 2


async def test_a_second_wake_up_does_nothing(api: Resources, worker: WorkerCrew) -> None:
    run, _ = await api.runs.submit(ask(QUICK))

    await asyncio.gather(worker.execute(run.id), worker.execute(run.id))
    await worker.execute(run.id)

    assert (await get_run(api, run)).attempt == 1
    assert_sound(await watch(api, run))


async def test_two_workers_woken_for_one_run_make_one_attempt(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    async with open_worker(settings, "worker-2") as other:
        run, _ = await api.runs.submit(ask(QUICK))

        await asyncio.gather(worker.execute(run.id), other.execute(run.id))

        assert (await get_run(api, run)).attempt == 1
        assert_sound(await watch(api, run))


async def test_a_model_that_fails_ends_the_run_failed_with_its_code(
    api: Resources, worker: WorkerCrew
) -> None:
    script = "[[script: tokens=9 delay_ms=0 fail_after=3 error=provider_rate_limited]]"
    run, _ = await api.runs.submit(ask(script))

    await worker.execute(run.id)

    events = await watch(api, run)
    assert_sound(events)
    assert [event["type"] for event in events[-3:]] == ["content", "error", "done"]
    error, done = events[-2]["metadata"], events[-1]["metadata"]
    assert error["code"] == done["error"]["code"] == "provider_rate_limited"
    assert error["retryable"] is True
    assert error["run_id"] == run.id
    assert done["status"] == "failed"
    assert done["content"] == events[-3]["content"]
    record = await get_run(api, run)
    assert record.status == "failed"
    assert record.outcome is not None
    assert record.outcome.code == "provider_rate_limited"


async def test_an_agent_that_is_not_installed_fails_the_run_with_its_name(
    api: Resources, worker: WorkerCrew
) -> None:
    run, _ = await api.runs.submit(ask(QUICK, target_name="nobody"))

    await worker.execute(run.id)

    events = await watch(api, run)
    assert events[-2]["metadata"]["code"] == "definition_missing"
    assert "nobody" in events[-2]["content"]


async def test_a_cancel_ends_the_run_cancelled_with_what_it_had_said(
    api: Resources, worker: WorkerCrew
) -> None:
    run, task = await begin(api, worker, ENDLESS)

    await api.runs.cancel(run)
    await asyncio.wait_for(task, 2)

    events = await watch(api, run)
    assert_sound(events)
    assert events[-1]["metadata"]["status"] == "cancelled"
    assert "error" not in types_of(events)
    assert events[-1]["metadata"]["content"] == shown_text(events) != ""
    assert (await get_run(api, run)).status == "cancelled"


async def test_a_cancel_whose_signal_is_lost_is_found_in_the_record(
    api: Resources, worker: WorkerCrew
) -> None:
    run, task = await begin(api, worker, ENDLESS)

    await api.attempts.records.request_cancel(run.id)
    await asyncio.wait_for(task, 4)

    assert (await get_run(api, run)).status == "cancelled"


async def test_a_cancel_before_the_start_closes_the_run(api: Resources) -> None:
    run, _ = await api.runs.submit(ask(QUICK))

    cancelled = await api.runs.cancel(run)
    again = await api.runs.cancel(run)

    assert cancelled.status == again.status == "cancelled"
    events = await watch(api, run)
    assert [event["type"] for event in events] == ["start", "done"]
    assert (await get_run(api, run)).attempts_spent == 0


async def test_a_run_that_takes_too_long_ends_with_timeout(impatient: Settings) -> None:
    async with open_process(impatient) as api, open_worker(impatient) as worker:
        await install_hello(api)
        run, _ = await api.runs.submit(ask(ENDLESS))

        await worker.execute(run.id)

        events = await watch(api, run)
        assert_sound(events)
        assert events[-2]["metadata"]["code"] == "timeout"
        assert "STREAM_TIMEOUT_SECONDS" in events[-2]["content"]
        assert events[-1]["metadata"]["status"] == "timeout"


async def test_a_drain_hands_the_run_back_without_spending_an_attempt(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    run, task = await begin(api, worker, ENDLESS)

    worker.interrupt_all(Interrupt.DRAIN)
    await asyncio.wait_for(task, 2)

    handed_back = await get_run(api, run)
    assert handed_back.status == "scheduled"
    assert handed_back.attempts_spent == 0
    async with open_worker(settings, "worker-2") as other:
        second = asyncio.create_task(other.execute(run.id))
        await until_status(api, run, "running")
        await api.runs.cancel(run)
        await second
    events = await watch(api, run)
    assert_sound(events)
    assert [e["id"] for e in events if e["type"] == "restart"] == ["2-1"]


async def test_a_restart_keeps_the_finished_workflow_and_takes_back_the_rest(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    run, task = await begin(api, worker, "[[script: tokens=60 delay_ms=15]]")

    worker.interrupt_all(Interrupt.DRAIN)
    await task
    async with open_worker(settings, "worker-2") as other:
        await other.execute(run.id)

    events = await watch(api, run)
    assert_sound(events)
    (restart,) = (event for event in events if event["type"] == "restart")
    assert restart["metadata"]["workflow_index"] == 1
    assert restart["metadata"]["content"] == ""
    pieces = [e["content"] for e in events if e["type"] == "content" and e["id"].startswith("2-")]
    assert "".join(pieces[:-1]) == pieces[-1] == events[-1]["metadata"]["content"]


async def test_an_attempt_that_was_taken_over_writes_nothing_more(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    run, zombie = await begin(api, worker, ENDLESS)

    stolen = await get_run(api, run)
    assert await api.attempts.hand_back(stolen, spent=True)
    async with open_worker(settings, "worker-2") as other:
        second = asyncio.create_task(other.execute(run.id))
        await asyncio.wait_for(zombie, 3)
        await api.runs.cancel(run)
        await second

    events = await watch(api, run)
    assert_sound(events)
    assert events[-1]["id"].startswith("2-")
    assert (await get_run(api, run)).status == "cancelled"


async def test_a_log_that_vanished_is_begun_again_by_a_new_attempt(
    api: Resources, worker: WorkerCrew, redis_server: RedisServer
) -> None:
    run, first = await begin(api, worker, ENDLESS)

    with redis_server.connect() as client:
        client.delete(api.log_keys.events(run.id))
    await asyncio.wait_for(first, 3)

    back = await get_run(api, run)
    assert back.status == "scheduled"
    assert back.attempts_spent == 0
    second = asyncio.create_task(worker.execute(run.id))
    await until_status(api, run, "running")
    await api.runs.cancel(run)
    await second
    events = await watch(api, run)
    assert events[0]["type"] == "restart"
    assert events[-1]["metadata"]["status"] == "cancelled"


async def test_a_run_out_of_attempts_is_closed_by_whoever_claims_it(
    api: Resources, worker: WorkerCrew, settings: Settings
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    for _ in range(settings.max_attempts):
        claimed = await api.attempts.claim(run.id, "worker-gone")
        assert claimed is not None
        assert await api.attempts.hand_back(claimed, spent=True)

    await worker.execute(run.id)

    events = await watch(api, run)
    assert [event["type"] for event in events] == ["restart", "content", "error", "done"]
    assert events[-2]["metadata"]["code"] == "attempts_exhausted"
    assert (await get_run(api, run)).status == "failed"


async def test_an_end_that_was_decided_and_not_published_is_published_once(
    api: Resources, worker: WorkerCrew
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    await worker.execute(run.id)
    ended = await get_run(api, run)

    # Given the note that it was published got lost, the log still shows the end.
    assert await api.attempts.repair(ended, "worker-2")

    again = await get_run(api, run)
    assert again.attempt == 1
    assert again.published


async def test_two_viewers_see_the_same_bytes(api: Resources, worker: WorkerCrew) -> None:
    run, _ = await api.runs.submit(ask("[[script: tokens=200 delay_ms=1]]"))

    async def read_all() -> list[bytes]:
        lines: list[bytes] = []
        async with api.viewing.open(run, fresh=True) as view:
            while not (lines and decode(lines[-1])["type"] == "done"):
                lines += [entry.data for entry in await view.next(1.0)]
        return lines

    first, second, _ = await asyncio.gather(read_all(), read_all(), worker.execute(run.id))

    assert first == second
    assert_sound([decode(line) for line in first])


async def test_a_claim_whose_answer_was_lost_is_known_again(
    api: Resources, worker: WorkerCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    backend = worker._resources.attempts.records
    claim = backend.claim

    async def claim_and_lose_the_answer(*args: Any) -> None:
        await claim(*args)
        raise StoreDown("The answer was lost.")

    monkeypatch.setattr(backend, "claim", claim_and_lose_the_answer)
    await worker.execute(run.id)

    ended = await get_run(api, run)
    assert (ended.status, ended.attempt) == ("executed", 1)
    assert_sound(await watch(api, run))

"""Where a client may join, and what is mended while it watches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from machina.errors import Gone, ResumeAhead
from machina.events import decode
from machina.ids import EventId
from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.worker.crew import WorkerCrew
from tests.fleet import (
    ask,
    assert_sound,
    get_run,
    install_hello,
    make_settings,
    open_process,
    shown_text,
    watch,
)
from tests.services import RedisServer

QUICK = "[[script: tokens=12 delay_ms=0]]"


async def finished(api: Resources, worker: WorkerCrew) -> Run:
    run, _ = await api.runs.submit(ask(QUICK))
    await worker.execute(run.id)
    return await get_run(api, run)


async def test_a_resume_from_every_event_sees_exactly_the_rest(
    api: Resources, worker: WorkerCrew
) -> None:
    run = await finished(api, worker)
    whole = await watch(api, run)

    for index, event in enumerate(whole):
        rest = await watch(api, run, after=EventId.parse(event["id"]))
        assert rest == whole[index + 1 :]


async def test_an_id_ahead_of_the_log_is_refused_with_the_newest(
    api: Resources, worker: WorkerCrew
) -> None:
    run = await finished(api, worker)

    with pytest.raises(ResumeAhead) as refused:
        await watch(api, run, after=EventId(1, 999))

    newest = (await watch(api, run))[-1]["id"]
    assert refused.value.details == {"newest": newest}


async def test_an_id_ahead_of_a_run_that_waits_is_refused(api: Resources) -> None:
    run, _ = await api.runs.submit(ask(QUICK))

    with pytest.raises(ResumeAhead) as refused:
        await watch(api, run, after=EventId(1, 1))

    assert refused.value.details == {"newest": None}


async def test_an_id_of_an_older_attempt_is_valid_whatever_its_number(
    api: Resources, worker: WorkerCrew
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    claimed = await api.attempts.claim(run.id, "worker-gone")
    assert claimed is not None
    await api.attempts.hand_back(claimed, spent=True)
    await worker.execute(run.id)

    events = await watch(api, run, after=EventId(1, 57))

    assert events[0]["type"] == "restart"
    assert_sound(events)


async def test_an_expired_log_is_gone_and_says_where_the_result_is(
    api: Resources, worker: WorkerCrew, redis_server: RedisServer
) -> None:
    run = await finished(api, worker)
    with redis_server.connect() as client:
        client.flushall()

    with pytest.raises(Gone) as refused:
        await watch(api, run)

    assert refused.value.details == {"run": f"/execution/agent-run/{run.id}"}


async def test_a_finished_run_whose_log_lost_its_tail_is_mended_from_the_record(
    api: Resources, worker: WorkerCrew, redis_server: RedisServer
) -> None:
    run = await finished(api, worker)
    whole = await watch(api, run)
    with redis_server.connect() as client:
        client.xdel(api.log_keys.events(run.id), *(event["id"] for event in whole[-4:]))

    events = await watch(api, run, after=EventId.parse(whole[-2]["id"]))

    assert [event["type"] for event in events] == ["restart", "content", "done"]
    assert shown_text(events) == shown_text(whole)
    assert events[0]["metadata"]["content"] == shown_text(whole)
    assert_sound(events)


async def test_an_end_that_was_published_again_and_lost_its_tail_is_published_once_more(
    api: Resources, worker: WorkerCrew, redis_server: RedisServer
) -> None:
    run = await finished(api, worker)
    whole = await watch(api, run)
    with redis_server.connect() as client:
        client.xdel(api.log_keys.events(run.id), whole[-1]["id"])
    again = await watch(api, run, after=EventId.parse(whole[-2]["id"]))
    # Given the repair is gone again and the log ends with what a viewer is already beyond.
    with redis_server.connect() as client:
        client.xdel(api.log_keys.events(run.id), *(event["id"] for event in again[1:]))

    events = await watch(api, run, after=EventId.parse(again[0]["id"]))

    assert_sound(events)
    assert shown_text(events) == shown_text(whole)


async def test_a_viewer_that_is_connected_when_the_log_vanishes_gets_the_end(
    api: Resources, worker: WorkerCrew, redis_server: RedisServer
) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    async with api.viewing.open(run, fresh=True) as view:
        await worker.execute(run.id)
        first = await view.next(1.0)
        assert not first[-1].is_terminal or first
        with redis_server.connect() as client:
            client.flushall()
        late = await watch_from(api, run, first[0].id)

    assert late[-1]["type"] == "done"


async def watch_from(api: Resources, run: Run, after: EventId) -> list[dict[str, object]]:
    """A viewer that had seen `after` before the log vanished, and never noticed."""
    seen: list[dict[str, object]] = []
    async with asyncio.timeout(9), api.viewing.open(run, after=after, fresh=True) as view:
        while not (seen and seen[-1]["type"] == "done"):
            seen += [decode(entry.data) for entry in await view.next(1.0)]
    return seen


async def test_a_viewer_ends_a_run_that_no_worker_takes(
    tmp_path: Path, redis_server: RedisServer, impatient: Settings
) -> None:
    async with open_process(impatient) as api:
        await install_hello(api)
        run, _ = await api.runs.submit(ask(QUICK))
        await asyncio.sleep(impatient.queue_timeout_seconds)

        events = await watch(api, run)

    assert events[-2]["metadata"]["code"] == "queue_timeout"


@pytest.fixture
def impatient(tmp_path: Path, redis_server: RedisServer) -> Settings:
    return make_settings(tmp_path, redis_server.url, queue_timeout_seconds=0.2)

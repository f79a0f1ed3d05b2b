"""Submitting, finding, waiting for and cancelling runs."""

from __future__ import annotations

import asyncio

import pytest

from machina.errors import IdempotencyMismatch, NotFound, QueueAmbiguous, QueueDown
from machina.resources import Resources
from machina.runs.lifecycle import RunLimits, Runs
from machina.runs.run import RunStatus, public_status, stored_statuses
from machina.settings import Settings
from tests.fleet import ask, get_run, open_worker

QUICK = "[[script: tokens=3 delay_ms=0]]"


async def test_requests_with_one_key_make_one_run(api: Resources) -> None:
    request = ask(QUICK, idempotency="k", fingerprint="f")

    answers = await asyncio.gather(*(api.runs.submit(request) for _ in range(20)))

    assert len({run.id for run, _ in answers}) == 1
    assert [created for _, created in answers].count(True) == 1


async def test_a_key_with_another_body_is_refused(api: Resources) -> None:
    await api.runs.submit(ask(QUICK, idempotency="k", fingerprint="f"))

    with pytest.raises(IdempotencyMismatch):
        await api.runs.submit(ask(QUICK, idempotency="k", fingerprint="g"))


class _Queue:
    """A queue that refuses, or whose answer is lost."""

    def __init__(self, error: QueueDown) -> None:
        self.error = error

    async def enqueue_run(self, run_id: str, queue: str) -> None:
        raise self.error


def runs_with(api: Resources, queue: _Queue) -> Runs:
    from machina.ids import make_mint
    from machina.runs.attempts import Attempts, LogLifetime

    attempts = Attempts(
        api.attempts.records,
        api.writer,
        queue,
        api.reader.inspect,
        api.store.now,
        LogLifetime(live=60, retention=60),
    )

    async def ring(run_id: str) -> None: ...

    limits = RunLimits(stream=60, background=60, queue=60)
    return Runs(
        attempts.records, attempts, api.reader, ring, make_mint(), limits, holder=api.holder
    )


async def test_a_run_that_the_queue_refused_is_closed_and_its_key_is_free(api: Resources) -> None:
    request = ask(QUICK, idempotency="k", fingerprint="f")
    refusing = runs_with(api, _Queue(QueueDown("full")))

    with pytest.raises(QueueDown):
        await refusing.submit(request)

    run, created = await api.runs.submit(request)
    assert created
    (refused,) = await api.attempts.records.find({"_id": {"$ne": run.id}})
    assert refused.status == "failed"
    assert refused.outcome is not None
    assert refused.outcome.code == "queue_unavailable"


async def test_a_run_whose_enqueueing_is_uncertain_is_kept(api: Resources) -> None:
    run, created = await runs_with(api, _Queue(QueueAmbiguous("lost"))).submit(ask(QUICK))

    assert created
    assert (await get_run(api, run)).status == "scheduled"


async def test_a_foreign_run_is_not_found_with_the_words_of_an_unknown_one(api: Resources) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    errors = []
    for run_id, project, principal in (
        (run.id, "default", "another"),
        (run.id, "elsewhere", None),
        ("0" * 24, "default", None),
        ("no id at all", "default", None),
    ):
        with pytest.raises(NotFound) as refused:
            await api.runs.get(run_id, project=project, principal=principal)
        errors.append(refused.value.message.replace(run_id, "X"))

    assert len(set(errors)) == 1
    assert (await api.runs.get(run.id, project="default", principal="somebody")).id == run.id
    assert (await api.runs.get(run.id, project="default", principal=None)).id == run.id


async def test_waiting_ends_with_the_run(api: Resources, settings: Settings) -> None:
    run, _ = await api.runs.submit(ask(QUICK))
    async with open_worker(settings) as worker:
        ended, _ = await asyncio.gather(api.runs.wait(run, 5), worker.execute(run.id))

    assert ended.status == "executed"


async def test_waiting_ends_with_the_time(api: Resources) -> None:
    run, _ = await api.runs.submit(ask(QUICK))

    assert (await api.runs.wait(run, 0.05)).status == "scheduled"


async def test_search_shows_a_client_its_own_runs(api: Resources) -> None:
    for principal in ("one", "one", "two"):
        await api.runs.submit(ask(QUICK, principal=principal))

    mine, total = await api.runs.search(
        project="default", principal="one", kinds=["agent"], query={}, sort=[], skip=0, limit=1
    )
    everything, all_ = await api.runs.search(
        project="default", principal=None, kinds=["agent"], query={}, sort=[], skip=0, limit=9
    )

    assert (len(mine), total) == (1, 2)
    assert (len(everything), all_) == (3, 3)


@pytest.mark.parametrize("status", list(RunStatus))
def test_public_words_translate_back_to_what_is_stored(status: RunStatus) -> None:
    for kind in ("agent", "workflow"):
        assert str(status) in stored_statuses(kind, public_status(kind, status))


def test_a_cancelled_run_shows_as_failed() -> None:
    assert public_status("agent", RunStatus.CANCELLED) == "failed"
    assert public_status("agent", RunStatus.EXECUTED) == "agent-executed"
    assert public_status("workflow", RunStatus.EXECUTED) == "executed"

"""What `append.lua` promises, on every server it must run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis, FakeRedis
from redis.asyncio import Redis

from machina.eventlog.answers import Answer
from machina.eventlog.clients import make_log_client
from machina.eventlog.keys import make_log_keys
from machina.eventlog.script import AppendScript, Batch, Verdict
from machina.ids import RunId
from tests.conftest import empty

KEYS = make_log_keys("test")
RUN = RunId("65f0000000000000000000a1")
OTHER = RunId("65f0000000000000000000b2")
LIVE_MS, RETENTION_MS = 600_000, 30_000
REAL = ("redis-6.2", "redis-7")


@pytest.fixture(scope="module")
def fake_redis_loaded() -> None:
    """fakeredis reads its table of commands from a file, once; here, outside the event loop."""
    with FakeRedis() as client:
        client.ping()


@pytest.fixture(params=[*REAL, "fakeredis"])
async def server(request: pytest.FixtureRequest, fake_redis_loaded: None) -> AsyncIterator[Redis]:
    """An empty server of each kind."""
    if request.param == "fakeredis":
        client: Redis = FakeAsyncRedis(protocol=2, driver_info=None)
    else:
        fixture = "redis_6" if request.param == "redis-6.2" else "redis_7"
        client = make_log_client(empty(request.getfixturevalue(fixture)).url)
    yield client
    await client.aclose()


@pytest.fixture
def script(server: Redis) -> AppendScript:
    return AppendScript(server, KEYS)


def batch(
    first: int,
    count: int = 1,
    *,
    attempt: int = 1,
    run: RunId = RUN,
    end: bool = False,
    repair: bool = False,
) -> Batch:
    lines = [f"{attempt}-{first + i}".encode() for i in range(count)]
    return Batch(run, attempt, first, lines, end, repair, LIVE_MS, RETENTION_MS)


async def entries(server: Redis, run: RunId = RUN) -> list[str]:
    """The log as text: each line, marked where it is the end. Lines repeat their ids."""
    raw: Any = await server.xrange(KEYS.events(run))
    for name, fields in raw:
        assert fields[b"d"] == name
    return [name.decode() + ("!" if b"end" in fields else "") for name, fields in raw]


async def answer(script: AppendScript, one: Batch) -> Verdict:
    (verdict,) = await script.commit([one])
    return verdict


OK, DUP, LOST, CLOSED = (
    Verdict(one) for one in (Answer.OK, Answer.DUP, Answer.LOST, Answer.CLOSED)
)


async def test_entries_get_dense_ids_when_batches_follow_each_other(
    server: Redis, script: AppendScript
) -> None:
    assert await answer(script, batch(1, 2)) == OK
    assert await answer(script, batch(3)) == OK
    assert await answer(script, batch(4, 2, end=True)) == OK
    assert await entries(server) == ["1-1", "1-2", "1-3", "1-4", "1-5!"]
    assert await server.get(KEYS.fence(RUN)) == b"1"


async def test_nothing_is_added_when_a_batch_is_sent_again(
    server: Redis, script: AppendScript
) -> None:
    for _ in range(2):
        await script.commit([batch(1, 3)])
    assert await answer(script, batch(1, 3)) == DUP
    assert await answer(script, batch(2)) == DUP
    assert await entries(server) == ["1-1", "1-2", "1-3"]


async def test_the_rest_is_added_when_a_batch_is_partly_there(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 3)])
    assert await answer(script, batch(2, 4, end=True)) == OK
    assert await entries(server) == ["1-1", "1-2", "1-3", "1-4", "1-5!"]
    assert await answer(script, batch(2, 4, end=True)) == DUP


async def test_a_gap_is_refused_with_the_seq_that_is_wanted(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2)])
    assert await answer(script, batch(4, 2)) == Verdict(Answer.GAP, 3)
    assert await entries(server) == ["1-1", "1-2"]


async def test_a_writer_gets_gap_when_the_tail_it_had_written_is_gone(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 5)])
    await server.xdel(KEYS.events(RUN), "1-4", "1-5")
    assert await answer(script, batch(6)) == Verdict(Answer.GAP, 4)
    assert await answer(script, batch(1, attempt=2)) == OK
    assert await entries(server) == ["1-1", "1-2", "1-3", "2-1"]


@pytest.mark.parametrize("server", REAL, indirect=True)  # fakeredis answers with another error
async def test_a_writer_gets_gap_when_the_ids_it_sends_again_were_removed(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 5)])
    await server.xdel(KEYS.events(RUN), "1-4", "1-5")
    assert await script.commit([batch(4, 2), batch(1, run=OTHER)]) == [Verdict(Answer.GAP, 4), OK]
    assert await entries(server) == ["1-1", "1-2", "1-3"]


async def test_an_older_attempt_is_fenced_when_a_newer_one_has_begun(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2), batch(1, attempt=3)])
    fenced = Verdict(Answer.FENCED, 3)
    assert await answer(script, batch(3)) == fenced
    assert await answer(script, batch(2)) == fenced, "not even what is there is acknowledged"
    assert await answer(script, batch(1, attempt=2)) == fenced
    assert await entries(server) == ["1-1", "1-2", "3-1"]


async def test_an_older_attempt_is_fenced_when_only_the_newer_entries_are_left(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, attempt=2)])
    await server.delete(KEYS.fence(RUN))
    assert await answer(script, batch(1)) == Verdict(Answer.FENCED, 2)
    assert await entries(server) == ["2-1"]


async def test_an_older_attempt_is_fenced_when_the_stream_of_the_newer_one_is_gone(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, attempt=2)])
    await server.delete(KEYS.events(RUN))
    assert await answer(script, batch(1)) == Verdict(Answer.FENCED, 2)
    assert not await server.exists(KEYS.events(RUN))


async def test_nothing_follows_the_terminal_entry(server: Redis, script: AppendScript) -> None:
    await script.commit([batch(1, 2, end=True)])
    assert await answer(script, batch(3)) == CLOSED
    assert await answer(script, batch(2, 2)) == CLOSED, "half of it is there, half comes too late"
    assert await answer(script, batch(1, attempt=2)) == CLOSED
    assert await answer(script, batch(3, repair=True)) == CLOSED, "only a later attempt repairs"
    assert await answer(script, batch(2, attempt=2, repair=True)) == CLOSED, "from its first entry"
    assert await answer(script, batch(1, 2, end=True)) == DUP
    assert await entries(server) == ["1-1", "1-2!"]
    assert await server.get(KEYS.fence(RUN)) == b"1"


async def test_a_later_attempt_writes_a_new_end_when_it_repairs(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2, end=True)])
    assert await answer(script, batch(1, attempt=2, repair=True)) == OK
    assert await answer(script, batch(2, 2, attempt=2, repair=True, end=True)) == OK
    assert await answer(script, batch(2, 2, attempt=2, repair=True, end=True)) == DUP
    assert await answer(script, batch(4, attempt=2, repair=True)) == CLOSED
    assert await answer(script, batch(3)) == Verdict(Answer.FENCED, 2)
    assert await entries(server) == ["1-1", "1-2!", "2-1", "2-2", "2-3!"]


async def test_a_repair_works_alike_when_the_old_end_was_lost(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 3, end=True)])
    await server.xdel(KEYS.events(RUN), "1-3")
    assert await answer(script, batch(1, 2, attempt=2, repair=True, end=True)) == OK
    assert await entries(server) == ["1-1", "1-2", "2-1", "2-2!"]


async def test_a_deleted_log_is_lost_and_never_made_anew_by_the_same_attempt(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2)])
    await server.delete(KEYS.events(RUN))
    assert await answer(script, batch(3)) == LOST
    assert await answer(script, batch(1, 2)) == LOST
    assert await answer(script, batch(2, attempt=2)) == LOST
    assert not await server.exists(KEYS.events(RUN))
    assert await answer(script, batch(1, attempt=2)) == OK
    assert await entries(server) == ["2-1"]


async def test_a_writer_gets_lost_when_the_whole_server_was_emptied(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2, attempt=2)])
    await server.flushall()
    assert await answer(script, batch(3, attempt=2)) == LOST
    assert await answer(script, batch(1, attempt=3)) == OK
    assert await entries(server) == ["3-1"]


async def test_a_writer_gets_gap_when_only_its_fence_is_gone(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2)])
    await server.delete(KEYS.fence(RUN))
    assert await answer(script, batch(3)) == Verdict(Answer.GAP, 3)
    assert await entries(server) == ["1-1", "1-2"]


async def test_a_newer_attempt_must_begin_with_its_first_entry(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 2)])
    assert await answer(script, batch(2, attempt=2)) == Verdict(Answer.GAP, 1)
    assert await server.get(KEYS.fence(RUN)) == b"1"
    assert await entries(server) == ["1-1", "1-2"]


async def test_each_run_gets_its_own_answer_when_one_call_carries_many(
    server: Redis, script: AppendScript
) -> None:
    runs = [RunId(f"65f0000000000000000001{i:02x}") for i in range(6)]
    fenced, closed, gap, dup, lost, fresh = runs
    await script.commit(
        [
            batch(1, attempt=2, run=fenced),
            batch(1, 2, run=closed, end=True),
            batch(1, run=gap),
            batch(1, run=dup),
            batch(1, run=lost),
        ]
    )
    await server.delete(KEYS.events(lost))
    verdicts = await script.commit(
        [
            batch(2, run=fenced),
            batch(1, 2, run=fresh),
            batch(3, run=closed),
            batch(3, run=gap),
            batch(1, run=dup),
            batch(2, run=lost),
            batch(3, run=fresh, end=True),
            batch(2, run=dup),
        ]
    )
    assert [verdict.answer for verdict in verdicts] == [
        Answer.FENCED,
        Answer.OK,
        Answer.CLOSED,
        Answer.GAP,
        Answer.DUP,
        Answer.LOST,
        Answer.OK,
        Answer.OK,
    ]
    assert await entries(server, fresh) == ["1-1", "1-2", "1-3!"]
    assert await entries(server, dup) == ["1-1", "1-2"]
    assert await entries(server, gap) == ["1-1"]


async def test_expiry_is_set_at_the_start_and_shortened_at_the_end_and_left_alone_between(
    server: Redis, script: AppendScript
) -> None:
    names = (KEYS.events(RUN), KEYS.fence(RUN))
    await script.commit([batch(1)])
    for name in names:
        assert LIVE_MS - 5_000 < await server.pttl(name) <= LIVE_MS
        await server.pexpire(name, 500_000)
    await script.commit([batch(2, 3), batch(1)])
    for name in names:
        assert await server.pttl(name) <= 500_000
    await script.commit([batch(5, end=True)])
    for name in names:
        assert RETENTION_MS - 5_000 < await server.pttl(name) <= RETENTION_MS
    await script.commit([batch(5, end=True)])
    await script.commit([batch(1, attempt=2, repair=True)])
    for name in names:
        assert LIVE_MS - 5_000 < await server.pttl(name) <= LIVE_MS


async def test_expiry_is_the_retention_when_one_batch_holds_the_whole_log(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1, 3, end=True)])
    for name in (KEYS.events(RUN), KEYS.fence(RUN)):
        assert 0 < await server.pttl(name) <= RETENTION_MS


async def test_one_bell_rings_per_call_and_names_the_runs_that_got_entries(
    server: Redis, script: AppendScript
) -> None:
    async with server.pubsub() as pubsub:
        await pubsub.subscribe(KEYS.bells)
        assert (await pubsub.get_message(timeout=1))["type"] == "subscribe"
        await script.commit([batch(1), batch(1, run=OTHER)])
        await script.commit([batch(1), batch(5)])  # DUP and GAP: nothing to hear
        await script.commit([batch(1, run=OTHER), batch(2)])
        heard = [(await pubsub.get_message(timeout=1))["data"] for _ in range(2)]
        assert heard == [f"{RUN}{OTHER}".encode(), RUN.encode()]
        assert await pubsub.get_message(timeout=0.01) is None


async def test_the_script_loads_itself_when_the_server_does_not_know_it(
    server: Redis, script: AppendScript
) -> None:
    await script.commit([batch(1)])
    await server.script_flush()
    assert await answer(script, batch(2)) == OK


async def test_lines_are_kept_byte_by_byte(server: Redis, script: AppendScript) -> None:
    lines = [bytes(range(256)), b"", b"x" * 100_000]
    await script.commit([Batch(RUN, 1, 1, lines, False, False, LIVE_MS, RETENTION_MS)])
    raw: Any = await server.xrange(KEYS.events(RUN))
    assert [fields[b"d"] for _, fields in raw] == lines

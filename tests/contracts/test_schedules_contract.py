"""Rows of schedules: one change of several wins, and what is asked of them is found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from machina.ids import make_mint
from machina.store.base import Backend, Duplicate, QueryRefused
from machina.store.definitions import DefinitionStore
from machina.store.schedules import Schedule, ScheduleStore

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ROW = Schedule(
    id="0" * 23 + "1",
    project="default",
    name="a",
    agent_id="f" * 24,
    agent="a",
    key="frequency",
    type="agent",
    target="a",
    payload={"q": "$.get('x')", "a.b": {"$ref": [1, None]}},
    interval=1.8,
    cron=None,
    timezone=None,
    once=False,
    allow_overlap=False,
    standing="live",
    error=None,
    fingerprint="x",
    paused=False,
    created=NOON,
    updated=NOON,
    next_at=NOON,
    wake_at=NOON,
)


@pytest.fixture
def schedules(backend: Backend) -> ScheduleStore:
    return ScheduleStore(backend)


def other(number: int, **values: object) -> Schedule:
    fields = {"id": f"{number:024}", "name": f"s{number}", **values}
    return replace(ROW, **fields)  # type: ignore[arg-type]  # fields of a row


async def test_a_row_comes_back_as_it_was(schedules: ScheduleStore) -> None:
    await schedules.insert(ROW)
    assert await schedules.get(ROW.id) == ROW
    assert await schedules.find("default", "a") == ROW
    assert await schedules.find("default", ROW.id) == ROW
    assert await schedules.find("elsewhere", "a") is None
    assert await schedules.find("elsewhere", ROW.id) is None
    assert await schedules.find("default", "") is None
    for taken in (ROW, replace(ROW, id="1" * 24)):
        with pytest.raises(Duplicate):
            await schedules.insert(taken)
    assert await schedules.remove(ROW)
    assert not await schedules.remove(ROW)


async def test_of_several_changes_on_one_revision_one_wins(schedules: ScheduleStore) -> None:
    await schedules.insert(ROW)
    answers = await asyncio.gather(*(schedules.change(ROW, fired=n) for n in range(1, 8)))
    (won,) = [answer for answer in answers if answer is not None]
    assert await schedules.get(ROW.id) == won
    assert won.revision == ROW.revision + 1
    assert await schedules.change(won, fired=9) is not None
    assert await schedules.change(won, fired=10) is None


async def test_waiting_rows_come_the_most_urgent_first(schedules: ScheduleStore) -> None:
    for number, seconds in enumerate((30, None, -10, 0)):
        wake_at = None if seconds is None else NOON + timedelta(seconds=seconds)
        await schedules.insert(other(number, wake_at=wake_at))
    assert [row.name for row in await schedules.waiting(10)] == ["s2", "s3", "s0"]
    assert [row.name for row in await schedules.waiting(1)] == ["s2"]


async def test_rows_are_found_by_target_and_by_agent(schedules: ScheduleStore) -> None:
    await schedules.insert(other(1, target="b", agent_id="1" * 24))
    await schedules.insert(other(2, target="b", type="skill", agent_id="1" * 24))
    await schedules.insert(other(3, target="b", project="elsewhere", agent_id="3" * 24))
    await schedules.insert(other(4, target="c", agent_id="4" * 24))
    (first,) = await schedules.of_target(other(1, target="b"))
    assert first.name == "s1"
    by_agent = await schedules.by_agent(["1" * 24, "4" * 24])
    assert {agent: len(rows) for agent, rows in by_agent.items()} == {"1" * 24: 2, "4" * 24: 1}
    assert len(await schedules.by_agent()) == 3


async def test_a_search_stays_in_its_project_and_language(schedules: ScheduleStore) -> None:
    for number in range(3):
        await schedules.insert(other(number, fired=number))
    await schedules.insert(other(9, project="elsewhere"))
    rows, total = await schedules.search("default", {}, skip=1, limit=1)
    assert ([row.name for row in rows], total) == (["s1"], 3)
    rows, total = await schedules.search(
        "default", {"fired": {"$gt": 0}, "project": "elsewhere"}, sort=(("fired", -1),)
    )
    assert (rows, total) == ([], 0)
    with pytest.raises(QueryRefused):
        await schedules.search("default", {"$where": "1"})


async def test_agents_are_read_in_pages_with_what_a_plan_needs(
    backend: Backend, schedules: ScheduleStore
) -> None:
    definitions = DefinitionStore(backend, make_mint())
    body = {"context": {"config-frequency": 5}, "jobs": [{"cron": "@daily"}], "workflows": [{}]}
    ids = [
        (await definitions.save("default", "agent", {"name": f"a{n}", **body}))[0] for n in range(3)
    ]
    first = await schedules.agents_since(None, limit=2)
    rest = await schedules.agents_since(None, first[-1]["_id"], limit=2)
    assert [row["_id"] for row in first + rest] == ids
    assert first[0]["name"] == "a0"
    assert first[0]["body"] == {"context": body["context"], "jobs": body["jobs"]}
    assert await schedules.agent(ids[0]) == first[0]
    assert await schedules.agent("0" * 24) is None
    now = await backend.now()
    assert len(await schedules.agents_since(now - timedelta(minutes=1))) == 3
    assert await schedules.agents_since(now + timedelta(minutes=1)) == []

"""Schedules follow their agents: nobody tells the scheduler what was installed."""

from __future__ import annotations

from datetime import timedelta

from machina.scheduler.reconcile import Policy
from tests.scheduler.world import NOON, World


async def test_installed_agents_get_schedules_and_others_do_not(any_world: World) -> None:
    world = any_world
    await world.frequent("five", 5)
    await world.frequent("off", 5, status="inactive")
    await world.frequent("never", 0)
    await world.install("plain")
    await world.install("jobs", status="active", jobs=[{"name": "x", "cron": "@daily"}])
    await world.turn(world.scheduler())
    assert await world.names() == ["five", "jobs:x", "off"]
    assert (await world.the("off")).state == "inactive"
    assert (await world.the("jobs:x")).next_at == NOON + timedelta(hours=12)
    assert len(await world.started()) == 1


async def test_what_cannot_fire_is_shown_with_its_reason(world: World) -> None:
    await world.install(
        "a",
        status="active",
        jobs=[
            {"name": "bad", "cron": "* * *"},
            {"name": "never", "cron": "0 0 31 2 *"},
            {"name": "zone", "cron": "@daily", "timezone": "Nowhere/Land"},
            {"name": "none"},
        ],
    )
    await world.frequent("text", "often")
    await world.turn(world.scheduler())
    assert len(await world.names()) == 5
    for name in ("a:bad", "a:never", "a:zone", "a:none", "text"):
        row = await world.the(name)
        assert row.state == "invalid"
        assert row.error, name
        assert row.wake_at is None
    assert await world.started() == []


async def test_a_changed_frequency_counts_from_the_last_time(world: World) -> None:
    await world.frequent("a", 60)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    world.pass_seconds(120)
    await world.frequent("a", 5)
    await world.turn(scheduler)
    assert (await world.the("a")).next_at == NOON + timedelta(minutes=5)
    await world.frequent("a", 1)
    world.pass_seconds(3)
    await world.turn(scheduler)
    assert len(await world.started()) == 2, "it is due at once"


async def test_switching_an_agent_off_and_on_stops_and_starts_it(world: World) -> None:
    id = await world.frequent("a", 1)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    await world.definitions.merge("default", "agent", id, {"status": "inactive"})
    await world.until(NOON + timedelta(minutes=5), scheduler)
    assert (await world.the("a")).state == "inactive"
    await world.definitions.merge("default", "agent", id, {"status": "active"})
    await world.until(NOON + timedelta(minutes=6, seconds=5), scheduler)
    assert (await world.the("a")).state == "active"
    assert 2 <= len(await world.started()) <= 3


async def test_a_change_counts_at_the_next_tick_even_before_anybody_looked_for_changes(
    world: World,
) -> None:
    id = await world.frequent("a", 1)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    world.now += timedelta(minutes=1)  # without the process's own clock, so that it does not look
    await world.definitions.merge("default", "agent", id, {"status": "inactive"})
    await world.turn(scheduler)
    assert len(await world.started()) == 1
    assert (await world.the("a")).state == "inactive"


async def test_the_schedules_of_a_removed_agent_go(world: World) -> None:
    gone = await world.frequent("gone", 10)
    due = await world.frequent("due", 1)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    await world.definitions.delete("default", "agent", gone)
    await world.definitions.delete("default", "agent", due)
    await world.until(NOON + timedelta(seconds=62), scheduler)
    assert await world.names() == []
    assert len(await world.started()) == 2


async def test_a_renamed_agent_takes_its_schedule_along(world: World) -> None:
    id = await world.frequent("a", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    await world.definitions.merge("default", "agent", id, {"name": "news"})
    await world.until(NOON + timedelta(minutes=10), scheduler)
    await world.finish_runs()
    assert await world.names() == ["news"]
    await world.definitions.merge("default", "agent", id, {"name": "new"})
    await world.until(NOON + timedelta(minutes=20), scheduler)
    assert await world.names() == ["new"]
    row = await world.the("new")
    assert (row.agent, row.target, row.fired) == ("new", "new", 3)


async def test_an_agent_that_is_made_again_at_once_gets_the_name_of_its_schedule(
    world: World,
) -> None:
    gone = await world.frequent("a", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.definitions.delete("default", "agent", gone)
    again = await world.frequent("a", 10)
    world.pass_seconds(3)
    await world.turn(scheduler)
    assert await world.names() == ["a"]
    assert (await world.the("a")).agent_id == again


async def test_a_frequency_that_is_taken_away_takes_its_schedule_along(world: World) -> None:
    id = await world.frequent("a", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.definitions.merge("default", "agent", id, {"context": {}})
    world.pass_seconds(61)
    await world.turn(scheduler)
    assert await world.names() == []


async def test_schedules_of_the_same_name_are_told_apart(world: World) -> None:
    await world.install("a:x", status="active", context={"config-frequency": 10})
    id = await world.install("a", status="active", jobs=[{"name": "x", "interval": 600}])
    await world.turn(world.scheduler())
    names = await world.names()
    assert len(names) == 2
    assert "a:x" in names
    assert len(await world.started()) == 2
    # Stays as it is when looked at again, and when its definition changes.
    await world.install("a", status="active", jobs=[{"name": "x", "interval": 700}])
    assert id
    world.pass_seconds(61)
    await world.turn(world.scheduler())
    assert await world.names() == names


async def test_a_pause_outlives_another_installation(world: World) -> None:
    await world.frequent("a", 10)
    await world.turn(world.scheduler())
    assert await world.store.change(await world.the("a"), paused=True, next_at=None, wake_at=None)
    await world.frequent("a", 20)
    world.pass_seconds(61)
    await world.turn(world.scheduler())
    row = await world.the("a")
    assert (row.state, row.interval, row.wake_at) == ("paused", 1200, None)


async def test_a_new_limit_of_the_operator_counts_for_what_is_installed(world: World) -> None:
    await world.frequent("a", 1)
    await world.turn(world.scheduler(Policy(min_seconds=1)))
    assert (await world.the("a")).interval == 60
    await world.turn(world.scheduler(Policy(min_seconds=90)))
    assert (await world.the("a")).interval == 90


async def test_a_plan_that_changes_while_it_is_fired_is_fired_as_it_was_taken(
    world: World,
) -> None:
    await world.frequent("a", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    row = await world.the("a")
    due = NOON + timedelta(minutes=10)
    taken = await world.store.change(
        row, firing=due, next_at=due + timedelta(minutes=10), wake_at=due + timedelta(seconds=10)
    )
    assert taken is not None
    await world.frequent("a", 30)
    world.pass_seconds(605)
    await world.turn(scheduler)
    assert (await world.the("a")).firing == due, "somebody may be at it"
    world.pass_seconds(10)
    await world.turn(scheduler)
    row = await world.the("a")
    assert (row.firing, row.fired, row.last_tick) == (None, 2, due)
    assert row.next_at == due + timedelta(minutes=30)


async def test_hundreds_of_agents_are_seen_and_fired_without_a_storm(world: World) -> None:
    for number in range(450):
        context = {"config-frequency": 10, "n": number} if number % 3 == 0 else {}
        await world.install(f"agent-{number:03}", context=context)
    await world.turn(world.scheduler(), world.scheduler())
    assert len(await world.names()) == 150
    assert len(await world.started()) == 150

"""What is fired when: first times, overlap, missed times, one-shots, limits, jumps of the clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from machina.errors import StoreDown
from machina.queue.names import Queue
from machina.runs.planned import PRINCIPAL, ScheduleBusy
from machina.scheduler.loop import make_policy
from machina.scheduler.reconcile import Policy
from machina.settings import load_settings
from tests.running import eventually, running
from tests.scheduler.world import NOON, Hazards, World


def later(**parts: float) -> Any:
    return NOON + timedelta(**parts)


async def job(world: World, name: str = "a", **fields: Any) -> str:
    return await world.install(name, status="active", jobs=[{"name": "j", **fields}])


async def test_a_frequency_fires_at_once_and_then_every_interval(world: World) -> None:
    await world.frequent("a", 0.1)
    scheduler = world.scheduler()
    for second in range(20):
        await world.until(later(seconds=second), scheduler)
        await world.finish_runs()
    assert await world.seconds("a") == [0, 6, 12, 18]
    (run, *_) = await world.started()
    assert (run.kind, run.queue, run.principal, run.project, run.inputs, run.streamed) == (
        *("agent", Queue.LOW, PRINCIPAL, "default", {}),
        False,
    )
    assert [queue for _, queue in world.queued] == [Queue.LOW] * 4


async def test_a_job_passes_its_context_as_it_is(world: World) -> None:
    await world.install("b")
    await job(world, target="b", interval=60, context={"q": "$.get('x', 1)", "n": {"k": [1]}})
    await world.turn(world.scheduler())
    (run,) = await world.started()
    assert (run.target_name, run.inputs) == ("b", {"q": "$.get('x', 1)", "n": {"k": [1]}})


async def test_cron_fires_at_its_times_and_not_before(world: World) -> None:
    await job(world, cron="*/15 * * * *", timezone="Europe/Lisbon")
    scheduler = world.scheduler()
    await world.turn(scheduler)
    for _ in range(10):
        world.pass_seconds(300)
        await world.turn(scheduler)
        await world.finish_runs()
    assert await world.seconds("a") == [900, 1800, 2700]


async def test_two_runs_of_one_agent_never_overlap(world: World) -> None:
    await world.frequent("a", 0.1)
    scheduler = world.scheduler()
    await world.until(later(seconds=20), scheduler)
    assert await world.seconds("a") == [0]
    row = await world.the("a")
    assert (row.fired, row.skipped) == (1, 3)
    assert world.ticks("skipped") == 3
    await world.finish_runs()
    await world.until(later(seconds=24), scheduler)
    assert await world.seconds("a") == [0, 24]


async def test_schedules_of_one_target_do_not_overlap_either(world: World) -> None:
    await world.install("b")
    for name in ("one", "two", "three"):
        await job(world, name, target="b", interval=60)
    await world.until(later(seconds=59), *(world.scheduler() for _ in range(3)))
    assert len(await world.started("b")) == 1
    rows = [await world.the(f"{name}:j") for name in ("one", "two", "three")]
    assert sum(row.fired for row in rows) == 1
    assert sum(row.skipped for row in rows) == 2
    assert all(row.firing is None for row in rows)


async def test_overlap_is_had_by_asking_for_it(world: World) -> None:
    await world.frequent("a", 0.1, allow_overlap=True)
    await world.until(later(seconds=13), world.scheduler())
    assert await world.seconds("a") == [0, 6, 12]


async def test_a_run_that_is_gone_from_the_store_is_over(world: World) -> None:
    await world.frequent("a", 0.1)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.backend.collection("runs").delete({})
    await world.until(later(seconds=6), scheduler)
    assert (await world.the("a")).fired == 2


async def test_what_was_missed_is_made_up_for_once(world: World) -> None:
    await world.frequent("a", 10)
    await job(world, "b", cron="0 * * * *")
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    world.pass_seconds(5 * 3_600 + 60)
    await world.until(world.now, scheduler)
    await world.finish_runs()
    assert await world.seconds("a") == [0, 18_060]
    assert await world.seconds("b") == [18_060]
    frequent, hourly = await world.the("a"), await world.the("b:j")
    assert frequent.last_tick == later(hours=5), "the last due time that passed"
    assert frequent.missed == 29
    assert frequent.next_at == later(hours=5, minutes=10), "on its grid again"
    assert hourly.last_tick == later(hours=5)
    assert hourly.next_at == later(hours=6)


async def test_what_was_missed_too_long_ago_is_left_out(world: World) -> None:
    await job(world, "b", cron="0 13 * * *")
    policy = Policy(min_seconds=1, catch_up_seconds=600)
    scheduler = world.scheduler(policy)
    await world.turn(scheduler)
    world.pass_seconds(2 * 3_600)
    await world.until(world.now, scheduler)
    row = await world.the("b:j")
    assert (row.fired, row.missed, row.next_at) == (0, 1, later(hours=25))
    assert world.ticks("missed") == 1
    world.pass_seconds(23 * 3_600 + 300)
    await world.turn(scheduler)
    row = await world.the("b:j")
    assert (row.fired, row.missed) == (1, 1)


async def test_an_interval_missed_too_long_ago_waits_for_its_next_time(world: World) -> None:
    await world.frequent("a", 1_440)
    policy = Policy(min_seconds=1, catch_up_seconds=3_600)
    scheduler = world.scheduler(policy)
    await world.turn(scheduler)
    await world.finish_runs()
    world.pass_seconds(36 * 3_600)
    await world.turn(scheduler)
    row = await world.the("a")
    assert (row.fired, row.missed, row.next_at) == (1, 1, later(hours=48))


async def test_no_schedule_fires_more_often_than_the_operator_allows(world: World) -> None:
    await world.frequent("a", 0.01, allow_overlap=True)
    await job(world, "b", cron="* * * * *", allow_overlap=True)
    scheduler = world.scheduler(Policy(min_seconds=100))
    await world.until(later(seconds=420), scheduler)
    assert await world.seconds("a") == [0, 100, 200, 300, 400]
    assert await world.seconds("b") == [60, 180, 300, 420]
    assert (await world.the("a")).interval == 100


async def test_a_one_shot_runs_once_after_installation_and_never_again(world: World) -> None:
    id = await world.frequent("a", 99999999)
    await world.until(later(minutes=2), world.scheduler())
    row = await world.the("a")
    assert (row.state, row.fired, row.next_at, row.wake_at) == ("done", 1, None, None)
    assert await world.frequent("a", 99999999, more=1) == id
    await world.until(later(minutes=4), world.scheduler())
    assert len(await world.started()) == 1


async def test_new_schedules_wait_when_they_start_paused_but_one_shots_do_not(
    world: World,
) -> None:
    await world.frequent("a", 1)
    await world.frequent("setup", 99999999)
    scheduler = world.scheduler(Policy(min_seconds=1, start_paused=True))
    await world.until(later(minutes=5), scheduler)
    assert [run.target_name for run in await world.started()] == ["setup"]
    assert (await world.the("a")).state == "paused"


async def test_one_shots_can_be_forbidden_and_allowed_later(world: World) -> None:
    await world.frequent("setup", 99999999)
    await world.until(later(minutes=5), world.scheduler(Policy(one_shots=False)))
    assert await world.started() == []
    assert (await world.the("setup")).state == "forbidden"
    await world.turn(world.scheduler(Policy()))
    assert len(await world.started()) == 1


async def test_a_one_shot_waits_for_a_run_of_its_agent_to_end(world: World) -> None:
    await world.install("a")
    await job(world, "b", target="a", interval=60)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.frequent("a", 99999999)
    await world.until(later(seconds=30), scheduler)
    assert len(await world.started("a")) == 1
    await world.finish_runs()
    await world.until(later(seconds=33), scheduler)
    assert len(await world.started("a")) == 2
    assert (await world.the("a")).state == "done"


async def test_a_paused_schedule_is_left_alone_and_goes_on_when_resumed(world: World) -> None:
    await world.frequent("a", 1)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    row = await world.the("a")
    assert await world.store.change(row, paused=True, next_at=None, wake_at=None)
    await world.until(later(minutes=10), scheduler)
    assert (await world.the("a")).fired == 1
    row = await world.the("a")
    assert await world.store.change(row, paused=False, wake_at=world.now)
    await world.until(later(minutes=10, seconds=30), scheduler)
    assert await world.seconds("a") == [0, 600]
    assert (await world.the("a")).missed == 0, "a pause is no outage"


async def test_a_tick_that_was_taken_before_the_pause_is_completed(world: World) -> None:
    await world.frequent("a", 1)
    await world.turn(world.scheduler())
    await world.finish_runs()
    row = await world.the("a")
    taken = await world.store.change(
        row, firing=row.next_at, next_at=later(minutes=2), wake_at=later(seconds=70)
    )
    assert taken is not None
    assert await world.store.change(taken, paused=True, next_at=None)
    world.pass_seconds(75)
    await world.until(later(minutes=10), world.scheduler())
    row = await world.the("a")
    assert (row.fired, row.firing, row.state, row.wake_at) == (2, None, "paused", None)


async def test_a_clock_that_jumps_ahead_fires_once_and_back_again_nothing_waits_for_it(
    world: World,
) -> None:
    await world.frequent("a", 5)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    world.now += timedelta(hours=1)
    await world.turn(scheduler)
    await world.finish_runs()
    assert (await world.the("a")).fired == 2
    world.now -= timedelta(hours=1)
    for _ in range(40):
        world.pass_seconds(10)
        await world.turn(scheduler)
        await world.finish_runs()
    row = await world.the("a")
    assert row.fired in (3, 4), "within a minute, and then every five"
    assert row.next_at is not None
    assert row.next_at <= world.now + timedelta(minutes=5)


async def test_cron_does_not_fire_a_time_twice_when_the_clock_is_set_back(world: World) -> None:
    await job(world, cron="0 * * * *")
    scheduler = world.scheduler()
    await world.turn(scheduler)
    world.pass_seconds(3_600)
    await world.turn(scheduler)
    await world.finish_runs()
    world.now -= timedelta(minutes=30)
    for _ in range(40):
        world.pass_seconds(60)
        await world.turn(scheduler)
    assert len(await world.started()) == 1


async def test_a_target_that_is_missing_is_told_and_tried_again_next_time(world: World) -> None:
    await job(world, target="ghost", interval=60)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    row = await world.the("a:j")
    assert row.last_error is not None
    assert "'ghost', which is not installed" in row.last_error
    assert (row.fired, row.next_at, row.firing) == (0, later(minutes=1), None)
    assert world.ticks("failed") == 1
    await world.install("ghost")
    await world.until(later(minutes=1), scheduler)
    row = await world.the("a:j")
    assert (row.fired, row.last_error) == (1, None)


async def test_skills_and_workflows_are_started_as_what_they_are(world: World) -> None:
    await world.definitions.save("default", "workflow", {"name": "flow"})
    skill, _ = await world.definitions.save(
        "default", "skill", {"name": "s", "workflows": [{"name": "flow"}]}
    )
    await job(world, "a", type="skill", target="s", interval=60, context={"x": 1})
    await job(world, "b", type="workflow", target="flow", interval=60)
    await job(world, "c", type="skill", target="flow", interval=60)
    await world.turn(world.scheduler())
    runs = {run.kind: run for run in await world.started()}
    assert {kind: run.target_name for kind, run in runs.items()} == {
        "skill": "s",
        "workflow": "flow",
    }
    assert (runs["skill"].target_id, runs["skill"].inputs) == (skill, {"x": 1})
    assert "starts the skill 'flow'" in str((await world.the("c:j")).last_error)


async def test_projects_do_not_see_each_other(world: World) -> None:
    context = {"config-frequency": 10}
    await world.install("a", project="one", context=context)
    await world.install("a", project="two", context=context)
    await world.turn(world.scheduler())
    assert sorted(run.project for run in await world.started()) == ["one", "two"]
    assert await world.store.find("three", "a") is None
    assert (await world.the("a", "one")).id != (await world.the("a", "two")).id
    one = await world.the("a", "one")
    assert await world.store.find("two", one.id) is None


async def test_a_row_that_nobody_understands_does_not_hold_up_the_others(world: World) -> None:
    await world.frequent("a", 10)
    await world.frequent("b", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.finish_runs()
    broken = await world.the("a")
    assert await world.store.change(broken, timezone="Nowhere/Land")
    await world.until(later(minutes=10), scheduler)
    assert (await world.the("b")).fired == 2
    broken = await world.the("a")
    assert broken.last_error is not None
    assert "Nowhere/Land" in broken.last_error
    assert broken.wake_at == later(minutes=11)


async def test_what_breaks_after_a_due_time_was_taken_is_shown_and_left_alone_for_a_while(
    world: World,
) -> None:
    await world.frequent("a", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    await world.backend.collection("runs").update_many({}, {"$unset": {"status": ""}})
    await world.until(later(minutes=10, seconds=59), scheduler)
    row = await world.the("a")
    assert row.last_error == "KeyError"
    assert (row.firing, row.wake_at) == (later(minutes=10), later(minutes=11))
    await world.finish_runs()
    await world.backend.collection("runs").update_many({}, {"$set": {"status": "executed"}})
    await world.until(later(minutes=11), scheduler)
    row = await world.the("a")
    assert (row.fired, row.firing, row.last_error) == (2, None, None)


async def test_starting_by_hand_leaves_the_due_times_as_they_are(world: World) -> None:
    await world.frequent("a", 10)
    scheduler = world.scheduler()
    await world.turn(scheduler)
    with pytest.raises(ScheduleBusy):
        await world.planned().start_by_hand(await world.the("a"), world.now)
    await world.finish_runs()
    world.pass_seconds(60)
    run = await world.planned().start_by_hand(await world.the("a"), world.now)
    row = await world.the("a")
    assert (row.last_run_id, row.fired, row.firing) == (run.id, 2, None)
    assert row.next_at == row.wake_at == later(minutes=10)
    await world.finish_runs()
    await world.until(later(minutes=10), scheduler)
    assert (await world.the("a")).fired == 3


async def test_a_start_by_hand_that_died_halfway_is_completed_once(world: World) -> None:
    await world.frequent("a", 10)
    await world.turn(world.scheduler())
    await world.finish_runs()
    row = await world.the("a")
    assert await world.store.change(row, firing=later(seconds=5), wake_at=later(seconds=15))
    with pytest.raises(ScheduleBusy):
        await world.planned().start_by_hand(await world.the("a"), world.now)
    stale = await world.the("a")
    await world.until(later(seconds=20), world.scheduler())
    with pytest.raises(ScheduleBusy):
        await world.planned().start_by_hand(stale, world.now)
    assert (await world.the("a")).fired == 2
    assert (await world.the("a")).next_at == later(minutes=10)


@pytest.mark.parametrize("was_recorded", [True, False])
async def test_where_no_scheduler_runs_the_next_start_by_hand_completes_it(
    world: World, was_recorded: bool
) -> None:
    await world.frequent("a", 10)
    await world.turn(world.scheduler())
    await world.finish_runs()
    row = await world.the("a")
    taken = await world.store.change(row, firing=later(seconds=5), wake_at=later(seconds=15))
    assert taken is not None
    if was_recorded:
        await world.planned().submit(taken)
    world.pass_seconds(20)
    run = await world.planned().start_by_hand(await world.the("a"), world.now)
    row = await world.the("a")
    assert (row.firing, row.fired, row.last_run_id) == (None, 2, run.id)
    assert len(await world.started()) == 2


async def test_a_window_of_nothing_still_allows_for_a_scheduler_that_is_busy(
    world: World,
) -> None:
    await world.frequent("a", 1)
    await job(world, "b", cron="* * * * *")
    scheduler = world.scheduler(Policy(catch_up_seconds=0))
    await world.turn(scheduler)
    await world.finish_runs()
    world.pass_seconds(80)
    await world.turn(scheduler)
    assert ((await world.the("a")).fired, (await world.the("b:j")).fired) == (2, 1)
    await world.finish_runs()
    world.pass_seconds(80)
    await world.turn(scheduler)
    assert ((await world.the("a")).fired, (await world.the("b:j")).fired) == (2, 1)
    assert ((await world.the("a")).missed, (await world.the("b:j")).missed) == (1, 1)


async def test_the_loop_waits_while_the_store_is_away_and_goes_on(world: World) -> None:
    await world.frequent("a", 10)
    hazards = Hazards()
    hazards.down = True
    scheduler = world.scheduler(hazards=hazards)
    with pytest.raises(StoreDown):
        await scheduler.tick()
    with capture_logs() as logs:
        async with running(scheduler.run):
            await eventually(lambda: any(line["event"] == "scheduler.waiting" for line in logs))
            assert world.queued == []
            hazards.down = False
            await eventually(lambda: len(world.queued) == 1)


async def test_an_idle_scheduler_asks_for_two_seconds_of_sleep(world: World) -> None:
    scheduler = world.scheduler()
    assert await world.turn(scheduler) == 2.0
    await world.frequent("a", 10)
    world.pass_seconds(1.5)
    assert await world.turn(scheduler) == 0.5
    world.pass_seconds(0.5)
    assert await world.turn(scheduler) == 2.0
    assert len(await world.started()) == 1
    world.pass_seconds(1)
    await world.frequent("b", 10)
    assert (await world.turn(scheduler)) == 1.0


def test_the_policy_is_what_the_settings_say() -> None:
    settings = load_settings(
        schedules_start_paused=True,
        one_shots=False,
        schedule_min_seconds=7,
        schedule_catch_up_seconds=9,
    )
    assert make_policy(settings) == Policy(
        start_paused=True, one_shots=False, min_seconds=7, catch_up_seconds=9
    )

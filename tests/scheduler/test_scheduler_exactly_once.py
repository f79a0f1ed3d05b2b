"""Each due time is fired exactly once, whatever dies where."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from machina.errors import QueueDown
from machina.scheduler.loop import Scheduler
from tests.scheduler.world import NOON, Hazards, Killed, World

EVERY = 600
AGENTS = 10
ROUNDS = {"embedded": 13}
"""On each store; eight seeds make a thousand ticks of it. Others are slower to ask."""


class Fleet:
    """Scheduler processes that are started again when they die."""

    def __init__(self, world: World, size: int, chance: float, seed: int) -> None:
        self.world = world
        self.deaths = 0
        self._seeds = random.Random(seed)
        self._chance = chance
        self._members = [self._start() for _ in range(size - 1)]
        self._members.append(self._start(kill_at=self._seeds.randrange(60)))

    def _start(self, kill_at: int = -1) -> Scheduler:
        hazards = Hazards(self._chance, self._seeds.randrange(1 << 30))
        hazards.kill_at(kill_at)
        return self.world.scheduler(hazards=hazards)

    async def look(self) -> float:
        """Everyone looks once, at the same time; the shortest pause that is asked for."""
        answers = await asyncio.gather(
            *(member.tick() for member in self._members), return_exceptions=True
        )
        pauses = []
        for number, answer in enumerate(answers):
            if isinstance(answer, Killed):
                self.deaths += 1
                self._members[number] = self._start()
                pauses.append(0.0)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                pauses.append(answer)
        return min(pauses)


@pytest.mark.parametrize("seed", range(8))
async def test_every_tick_is_fired_once_when_schedulers_keep_dying(
    any_world: World, seed: int, request: pytest.FixtureRequest
) -> None:
    world, rounds = any_world, ROUNDS.get(request.node.callspec.params["any_place"], 2)
    for number in range(AGENTS):
        await world.frequent(f"agent-{number}", EVERY / 60)
    fleet = Fleet(world, size=3, chance=0.01, seed=seed)
    end = NOON + timedelta(seconds=EVERY * rounds - 1)
    while world.now < end:
        while not await fleet.look():
            pass
        await world.finish_runs()
        (soonest,) = await world.store.waiting(1)
        assert soonest.wake_at is not None
        world.pass_seconds(max(0.1, (min(soonest.wake_at, end) - world.now).total_seconds()))
    runs = await world.started()
    assert fleet.deaths > 0
    ticks = Counter(
        (run.target_name, int((run.created - NOON).total_seconds() // EVERY)) for run in runs
    )
    assert ticks == Counter(
        {(f"agent-{agent}", tick): 1 for agent in range(AGENTS) for tick in range(rounds)}
    )
    rows, _ = await world.store.search("default", {}, limit=100)
    assert {(row.fired, row.skipped, row.missed) for row in rows} == {(rounds, 0, 0)}


@pytest.mark.parametrize("moment", range(40))
async def test_a_tick_is_neither_lost_nor_doubled_when_its_scheduler_dies(
    world: World, moment: int
) -> None:
    await world.frequent("a", 0.5)
    hazards = Hazards()
    doomed = world.scheduler(hazards=hazards)
    hazards.kill_at(moment)
    try:
        await world.turn(doomed)
    except Killed:
        pass
    else:
        assert not hazards.is_dead
    await world.until(NOON + timedelta(seconds=29), world.scheduler())
    (run,) = await world.started()
    row = await world.the("a")
    assert (row.fired, row.firing, row.last_run_id) == (1, None, run.id)
    assert row.next_at == NOON + timedelta(seconds=30)


async def test_many_schedulers_at_one_moment_start_one_run(any_world: World) -> None:
    await any_world.frequent("a", 1)
    fleet = [any_world.scheduler() for _ in range(6)]
    await any_world.turn(*fleet)
    assert len(await any_world.started()) == 1
    assert len(any_world.queued) == 1
    assert (await any_world.the("a")).fired == 1
    assert any_world.ticks("fired") == 1


async def test_a_tick_waits_for_the_queue_and_is_fired_once_when_it_is_back(world: World) -> None:
    await world.frequent("a", 5)
    scheduler = world.scheduler()
    world.queue_error = QueueDown("away")
    with pytest.raises(QueueDown):
        await world.turn(scheduler)
    row = await world.the("a")
    assert (row.firing, row.fired, row.last_error) == (NOON, 0, "away")
    world.pass_seconds(11)
    with pytest.raises(QueueDown):
        await world.turn(scheduler)
    assert (await world.the("a")).wake_at == world.now + timedelta(seconds=20), "it backs off"
    world.queue_error = None
    await world.until(NOON + timedelta(seconds=60), scheduler)
    assert len(world.queued) == 1
    row = await world.the("a")
    assert (row.fired, row.last_error, row.tries) == (1, None, 0)
    assert row.next_at == NOON + timedelta(minutes=5)


async def test_a_slow_scheduler_that_comes_back_does_not_count_the_tick_again(
    world: World,
) -> None:
    await world.frequent("a", 1)
    await world.turn(world.scheduler())
    row = await world.the("a")
    stale = await world.store.change(row, firing=row.next_at, next_at=None)
    assert stale is not None
    run = await world.planned().submit(stale)
    assert await world.planned().note(stale, run, world.now)
    assert not await world.planned().note(stale, run, world.now)
    assert (await world.the("a")).fired == 2

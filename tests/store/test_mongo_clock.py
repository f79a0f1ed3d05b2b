"""The server's clock, told by one of ours that never jumps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from machina.errors import StoreDown
from machina.store.mongo_clock import FRESH_SECONDS, TRIES, ServerClock
from machina.store.mongo_shared import Shared

START = datetime(2026, 1, 31, 8, tzinfo=UTC)


class World:
    """A server's time, ours, and how long each answer takes; they pass together."""

    def __init__(self, *delays: float) -> None:
        self.passed = 1_000.0
        self.asked = 0
        self.down = False
        self._delays = list(delays)
        self._jump = timedelta(0)

    def elapsed(self) -> float:
        return self.passed

    def jump(self, hours: float) -> None:
        self._jump += timedelta(hours=hours)

    @property
    def server_time(self) -> datetime:
        return START + self._jump + timedelta(seconds=self.passed)

    async def ask(self) -> datetime:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise StoreDown
        delay = self._delays.pop(0) if self._delays else 0.0
        self.passed += delay / 2
        told = self.server_time
        self.passed += delay / 2
        return told

    def clock(self) -> ServerClock:
        return ServerClock(self.ask, elapsed=self.elapsed)


async def test_it_is_asked_once_for_all_who_want_to_know_within_five_seconds() -> None:
    world = World()
    clock = world.clock()
    for _ in range(5):
        assert set(await asyncio.gather(*(clock.now() for _ in range(9)))) == {world.server_time}
        world.passed += FRESH_SECONDS / 5
    assert world.asked == 1
    world.passed += 0.1
    assert await clock.now() == world.server_time
    assert world.asked == 2


async def test_a_slow_answer_is_asked_for_again_and_the_quickest_counts() -> None:
    world = World(3.0, 0.2, 0.4)
    assert await world.clock().now() == world.server_time
    assert world.asked == TRIES
    world = World(3.0, 0.01)
    assert await world.clock().now() == world.server_time
    assert world.asked == 2


async def test_it_errs_by_half_an_answer_at_most() -> None:
    class Late(World):
        async def ask(self) -> datetime:
            told = self.server_time
            self.passed += 0.04
            return told

    world = Late()
    assert abs(await world.clock().now() - world.server_time) <= timedelta(seconds=0.02)


async def test_a_jump_of_the_servers_clock_is_followed_within_five_seconds() -> None:
    world = World()
    clock = world.clock()
    await clock.now()
    world.jump(-1)
    world.passed += FRESH_SECONDS + 0.1
    assert await clock.now() == world.server_time


async def test_nothing_is_told_when_the_server_is_away_or_was_forgotten() -> None:
    world = World()
    clock = world.clock()
    await clock.now()
    world.down = True
    assert await clock.now() == world.server_time
    clock.forget()
    with pytest.raises(StoreDown):
        await clock.now()
    world.down = False
    assert await clock.now() == world.server_time


async def test_all_who_wait_share_one_attempt_and_its_failure() -> None:
    attempts = 0

    async def make() -> int:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0)
        if attempts == 1:
            raise StoreDown
        return attempts

    shared = Shared(make)
    outcomes = await asyncio.gather(*(shared.get() for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreDown}
    assert await asyncio.gather(*(shared.get() for _ in range(5))) == [2] * 5
    shared.forget()
    assert await shared.get() == 3


async def test_who_stops_waiting_does_not_spoil_it_for_the_others() -> None:
    gate = asyncio.Event()

    async def make() -> bool:
        return await gate.wait()

    shared = Shared(make)
    impatient, patient = asyncio.create_task(shared.get()), asyncio.create_task(shared.get())
    await asyncio.sleep(0)
    shared.forget()  # one is under way: it counts as new
    impatient.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert await patient
    await shared.aclose()
    abandoned = Shared(asyncio.Event().wait)
    waiting = asyncio.create_task(abandoned.get())
    await asyncio.sleep(0)
    await abandoned.aclose()
    with pytest.raises(StoreDown, match="closed"):
        await waiting

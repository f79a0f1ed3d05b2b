"""One circuit for a fleet: two processes, one Redis, and none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from machina.breaker import Breaker, SharedBreaker, State
from machina.errors import BreakerOpen
from machina.queue.enqueue import make_queue_client
from tests.services import RedisServer, off_loop

COOL_DOWN = 0.1
LONG = 600.0
"""A cool-down that no test waits for."""


@dataclass
class Fleet:
    """Two API processes and a worker."""

    redis: RedisServer
    one: SharedBreaker
    two: SharedBreaker

    async def look(self) -> None:
        """A second passes: both processes hear of the state."""
        await self.one.settle()
        await self.two.settle()
        await self.one.look()
        await self.two.look()

    async def fail(self, breaker: SharedBreaker, times: int) -> None:
        for _ in range(times):
            breaker.failure(await breaker.admit())
            await breaker.settle()


def make_breaker(client: Redis, cool_down: float) -> SharedBreaker:
    local = Breaker(
        "agent_streaming",
        threshold=3,
        cool_down_seconds=cool_down,
        probe_seconds=LONG,
        clock=asyncio.get_running_loop().time,
    )
    return SharedBreaker(local, client, "test:breaker:agent_streaming")


@asynccontextmanager
async def open_fleet(redis: RedisServer, cool_down: float) -> AsyncIterator[Fleet]:
    clients = [make_queue_client(redis.url) for _ in range(2)]
    fleet = Fleet(redis, *(make_breaker(client, cool_down) for client in clients))
    await fleet.look()
    try:
        yield fleet
    finally:
        await fleet.one.settle()
        await fleet.two.settle()
        for client in clients:
            await client.aclose()


@pytest.fixture
async def fleet(own_redis: RedisServer) -> AsyncIterator[Fleet]:
    """A fleet whose breaker stays open once it is open."""
    async with open_fleet(own_redis, LONG) as fleet:
        yield fleet


@pytest.fixture
async def half_open(own_redis: RedisServer) -> AsyncIterator[Fleet]:
    """A fleet whose breaker has opened and cooled down."""
    async with open_fleet(own_redis, COOL_DOWN) as fleet:
        await fleet.fail(fleet.one, 3)
        await asyncio.sleep(2 * COOL_DOWN)
        await fleet.look()
        yield fleet


async def test_failures_of_all_processes_count_together(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 2)
    await fleet.look()
    await fleet.fail(fleet.two, 1)
    await fleet.look()

    for breaker in (fleet.one, fleet.two):
        assert breaker.snapshot()[1:] == (3, 3)
        with pytest.raises(BreakerOpen) as refused:
            await breaker.admit()
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= LONG


async def test_a_success_between_failures_starts_the_count_again(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 2)
    await fleet.look()
    fleet.two.success(await fleet.two.admit())
    await fleet.look()
    await fleet.fail(fleet.one, 2)
    await fleet.look()

    assert fleet.two.snapshot().state is State.CLOSED
    assert fleet.two.snapshot().failure_count == 2


async def test_one_probe_goes_through_in_the_whole_fleet_and_closes_it(half_open: Fleet) -> None:
    fleet = half_open

    answers = await asyncio.gather(
        *(breaker.admit() for breaker in (fleet.one, fleet.two) for _ in range(10)),
        return_exceptions=True,
    )

    probes = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(probes) == 1
    assert all(isinstance(a, BreakerOpen) for a in answers if isinstance(a, BaseException))
    fleet.one.success(probes[0])
    await fleet.look()
    assert fleet.one.snapshot().state is fleet.two.snapshot().state is State.CLOSED


async def test_a_probe_without_a_verdict_makes_room_for_the_next(half_open: Fleet) -> None:
    probe = await half_open.one.admit()
    assert probe.probe
    with pytest.raises(BreakerOpen):
        await half_open.two.admit()

    half_open.one.release(probe)
    await half_open.look()

    assert (await half_open.two.admit()).probe


async def test_a_probe_that_fails_opens_it_again(half_open: Fleet) -> None:
    half_open.one.failure(await half_open.one.admit())
    await half_open.look()

    assert half_open.two.snapshot().failure_count == 4


async def test_a_run_that_failed_for_the_infrastructure_counts(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.two.run_failed()
    await fleet.look()

    assert fleet.one.snapshot().state is not State.CLOSED


async def test_a_reset_closes_it_for_all(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 3)
    await fleet.look()

    await fleet.two.reset()
    await fleet.look()

    assert fleet.one.snapshot() == fleet.two.snapshot() == (State.CLOSED, 0, 3)


async def test_it_opens_and_closes_alone_while_redis_is_what_is_down(fleet: Fleet) -> None:
    await off_loop(fleet.redis.kill)

    await fleet.fail(fleet.one, 3)
    with pytest.raises(BreakerOpen):
        await fleet.one.admit()
    assert fleet.one.snapshot().state is State.OPEN

    await off_loop(fleet.redis.start)
    await fleet.look()
    assert fleet.one.snapshot().state is State.CLOSED
    assert not (await fleet.one.admit()).probe

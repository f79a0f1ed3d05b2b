"""One circuit for a fleet: two processes, one Redis, and none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from machina.breaker import Breaker, SharedBreaker, State
from machina.errors import BreakerOpen
from machina.queue.enqueue import make_queue_client
from tests.services import RedisServer, off_loop

COOL_DOWN = 0.05


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
        for breaker in (self.one, self.two):
            looking = asyncio.create_task(breaker.run())
            await asyncio.sleep(0.02)
            looking.cancel()
            await asyncio.wait([looking])

    async def fail(self, breaker: SharedBreaker, times: int) -> None:
        for _ in range(times):
            breaker.failure(await breaker.admit())
            await breaker.settle()


def make_breaker(client: Redis) -> SharedBreaker:
    local = Breaker(
        "agent_streaming",
        threshold=3,
        cool_down_seconds=COOL_DOWN,
        probe_seconds=COOL_DOWN,
        clock=asyncio.get_running_loop().time,
    )
    return SharedBreaker(local, client, "test:breaker:agent_streaming")


@pytest.fixture
async def fleet(own_redis: RedisServer) -> AsyncIterator[Fleet]:
    clients = [make_queue_client(own_redis.url) for _ in range(2)]
    fleet = Fleet(own_redis, make_breaker(clients[0]), make_breaker(clients[1]))
    await fleet.look()
    yield fleet
    for breaker, client in zip((fleet.one, fleet.two), clients, strict=True):
        await breaker.settle()
        await client.aclose()


async def test_failures_of_all_processes_count_together(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 2)
    await fleet.look()
    await fleet.fail(fleet.two, 1)
    await fleet.look()

    for breaker in (fleet.one, fleet.two):
        assert breaker.snapshot()[1:] == (3, 3)
        with pytest.raises(BreakerOpen) as refused:
            await _admit_before_cool_down(breaker)
        assert refused.value.retry_after is not None


async def _admit_before_cool_down(breaker: SharedBreaker) -> None:
    while True:
        ticket = await breaker.admit()
        if ticket.probe:  # it cooled down meanwhile: open it again
            breaker.failure(ticket)
            await breaker.settle()


async def test_a_success_between_failures_starts_the_count_again(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 2)
    await fleet.look()
    fleet.two.success(await fleet.two.admit())
    await fleet.look()
    await fleet.fail(fleet.one, 2)
    await fleet.look()

    assert fleet.two.snapshot().state is State.CLOSED
    assert fleet.two.snapshot().failure_count == 2


async def test_one_probe_goes_through_in_the_whole_fleet_and_closes_it(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 3)
    await fleet.look()
    await asyncio.sleep(COOL_DOWN)

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


async def test_a_probe_that_says_nothing_gives_way_after_its_time(fleet: Fleet) -> None:
    await fleet.fail(fleet.one, 3)
    await fleet.look()
    await asyncio.sleep(COOL_DOWN)
    assert (await fleet.one.admit()).probe
    await asyncio.sleep(COOL_DOWN)

    assert (await fleet.two.admit()).probe


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

"""The gate: who passes, who waits, who is refused, and that no permit is ever lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from machina.admission import Gate
from machina.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_gate(
    capacity: int = 2, *, wait: float = 0.0, jitter: float = 0.5, clock: Clock | None = None
) -> Gate:
    return Gate(capacity, wait_seconds=wait, clock=clock or Clock(), random=lambda: jitter)


async def test_permits_are_given_up_to_the_capacity_and_the_next_is_refused() -> None:
    gate = make_gate(2)
    await gate.acquire()
    await gate.acquire()
    assert gate.active == 2
    with pytest.raises(Overloaded, match="All 2 streams"):
        await gate.acquire()
    assert gate.active == 2


async def test_a_permit_given_back_twice_frees_one_place() -> None:
    gate = make_gate(1)
    permit = await gate.acquire()
    permit.release()
    permit.release()
    await gate.acquire()
    with pytest.raises(Overloaded):
        await gate.acquire()


async def test_who_comes_when_all_are_taken_gets_the_permit_that_is_freed_in_time() -> None:
    gate = make_gate(1, wait=5)
    first = await gate.acquire()
    waiting = asyncio.create_task(gate.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.release()
    second = await waiting
    assert gate.active == 1
    second.release()


async def test_the_wait_is_short() -> None:
    gate = make_gate(1, wait=0.01)
    await gate.acquire()
    loop = asyncio.get_running_loop()
    before = loop.time()
    with pytest.raises(Overloaded):
        await gate.acquire()
    assert 0.005 <= loop.time() - before < 1


async def test_retry_after_is_the_mean_holding_time_over_the_capacity() -> None:
    clock = Clock()
    gate = make_gate(4, clock=clock)
    for _ in range(3):
        permit = await gate.acquire()
        clock.now += 20
        permit.release()
    assert gate.retry_after() == pytest.approx(5)


async def test_retry_after_counts_what_is_held_now_when_nothing_has_ended_yet() -> None:
    clock = Clock()
    gate = make_gate(2, clock=clock)
    await gate.acquire()
    await gate.acquire()
    clock.now += 40
    with pytest.raises(Overloaded) as refused:
        await gate.acquire()
    assert refused.value.retry_after == pytest.approx(20)


async def test_retry_after_follows_the_newest_holding_times() -> None:
    clock = Clock()
    gate = make_gate(1, clock=clock)
    for seconds in [1.0] * 5 + [100.0] * 30:
        permit = await gate.acquire()
        clock.now += seconds
        permit.release()
    assert 50 < gate.retry_after() <= 60


@pytest.mark.parametrize(("jitter", "expected"), [(0.0, 5.0), (0.5, 10.0), (0.999, 15.0)])
async def test_retry_after_is_spread_by_the_injected_randomness(
    jitter: float, expected: float
) -> None:
    clock = Clock()
    gate = make_gate(1, jitter=jitter, clock=clock)
    permit = await gate.acquire()
    clock.now += 10
    permit.release()
    assert gate.retry_after() == pytest.approx(expected, abs=0.02)


async def test_no_permit_leaks_when_a_thousand_askers_are_cancelled_at_random() -> None:
    dice = random.Random(7)
    gate = Gate(5, wait_seconds=0.02, clock=asyncio.get_running_loop().time, random=dice.random)

    async def hold() -> None:
        permit = await gate.acquire()
        try:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
        finally:
            permit.release()

    tasks = []
    for _ in range(1_000):
        tasks.append(asyncio.create_task(hold()))
        if dice.random() < 0.7:
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            dice.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} >= {type(None), asyncio.CancelledError}
    assert gate.active == 0
    for _ in range(5):
        await gate.acquire()
    with pytest.raises(Overloaded):
        await gate.acquire()

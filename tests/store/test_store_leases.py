"""Leases of workers and roles: whoever judges a row does so by the beat it saw."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from machina.errors import StoreDown
from machina.store import Store
from machina.store.embedded import FILE_NAME, open_embedded
from machina.store.leases import LeaseStore


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_worker_is_listed_from_its_registration_to_its_release(store: Store) -> None:
    before = await store.now()
    await store.leases.register("w2", {"queues": ["high_priority"], "threads": 8})
    await store.leases.register("w1", {})
    first, second = await store.leases.workers()
    assert (first.worker, second.worker) == ("w1", "w2")
    assert second.info == {"queues": ["high_priority"], "threads": 8}
    assert before <= second.registered == second.renewed
    await store.leases.release("w1")
    await store.leases.release("w1")
    assert [row.worker for row in await store.leases.workers()] == ["w2"]


async def test_every_renewal_is_a_beat(store: Store) -> None:
    await store.leases.register("w", {})
    (first,) = await store.leases.workers()
    assert await store.leases.renew("w")
    (second,) = await store.leases.workers()
    assert second.beat == first.beat + 1
    assert second.renewed >= first.renewed
    assert second.registered == first.registered


async def test_a_worker_is_buried_only_by_the_beat_that_was_seen(store: Store) -> None:
    await store.leases.register("w", {})
    (seen,) = await store.leases.workers()
    await store.leases.renew("w")
    assert not await store.leases.bury("w", seen.beat)
    (seen,) = await store.leases.workers()
    outcomes = await asyncio.gather(*(store.leases.bury("w", seen.beat) for _ in range(5)))
    assert sum(outcomes) == 1
    assert not await store.leases.renew("w"), "a buried worker learns it by its next renewal"
    await store.leases.register("w", {})
    assert await store.leases.renew("w")


async def test_registering_again_is_a_beat_too(store: Store) -> None:
    await store.leases.register("w", {"v": 1})
    (seen,) = await store.leases.workers()
    await store.leases.register("w", {"v": 2})
    assert not await store.leases.bury("w", seen.beat)
    (row,) = await store.leases.workers()
    assert row.info == {"v": 2}


async def test_one_of_many_is_elected_and_stays_it(store: Store) -> None:
    stores = [LeaseStore(store.backend) for _ in range(5)]

    async def elect() -> list[bool]:
        return await asyncio.gather(
            *(lease.elect("reaper", f"h{n}", silent_seconds=60) for n, lease in enumerate(stores))
        )

    first = await elect()
    assert sum(first) == 1
    assert await elect() == first
    assert await store.leases.workers() == [], "a role is no worker"


async def test_a_role_is_taken_over_after_silence_only(store: Store) -> None:
    clock = Clock()
    holder = LeaseStore(store.backend, monotonic=clock)
    challenger = LeaseStore(store.backend, monotonic=clock)
    assert await holder.elect("reaper", "h", silent_seconds=2)
    assert not await challenger.elect("reaper", "c", silent_seconds=2)
    clock.seconds = 1.9
    assert await holder.elect("reaper", "h", silent_seconds=2)
    clock.seconds = 2.1
    assert not await challenger.elect("reaper", "c", silent_seconds=2), "it moved meanwhile"
    clock.seconds = 4.0
    assert not await challenger.elect("reaper", "c", silent_seconds=2)
    clock.seconds = 4.2
    assert await challenger.elect("reaper", "c", silent_seconds=2)
    assert not await holder.elect("reaper", "h", silent_seconds=2)
    assert await challenger.elect("reaper", "c", silent_seconds=2)


async def test_one_of_two_challengers_takes_over(store: Store) -> None:
    clock = Clock()
    challengers = [LeaseStore(store.backend, monotonic=clock) for _ in range(2)]
    await store.leases.elect("reaper", "h", silent_seconds=2)
    for n, challenger in enumerate(challengers):
        assert not await challenger.elect("reaper", f"c{n}", silent_seconds=2)
    clock.seconds = 3
    taken = await asyncio.gather(
        *(c.elect("reaper", f"c{n}", silent_seconds=2) for n, c in enumerate(challengers))
    )
    assert sum(taken) == 1


async def test_a_resigned_role_is_free_at_once(store: Store) -> None:
    assert await store.leases.elect("reaper", "h", silent_seconds=60)
    await store.leases.resign("reaper", "somebody else")
    other = LeaseStore(store.backend)
    assert not await other.elect("reaper", "c", silent_seconds=60)
    await store.leases.resign("reaper", "h")
    assert await other.elect("reaper", "c", silent_seconds=60)


async def test_silence_does_not_count_across_an_outage(tmp_path: Path) -> None:
    clock = Clock()
    async with open_embedded(tmp_path, busy_seconds=0.05) as backend:
        holder = LeaseStore(backend, monotonic=clock)
        challenger = LeaseStore(backend, monotonic=clock)
        assert await holder.elect("reaper", "h", silent_seconds=2)
        assert not await challenger.elect("reaper", "c", silent_seconds=2)
        clock.seconds = 100
        lock = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreDown):
            await challenger.elect("reaper", "c", silent_seconds=2)
        lock.close()
        assert not await challenger.elect("reaper", "c", silent_seconds=2)
        clock.seconds = 103
        assert await challenger.elect("reaper", "c", silent_seconds=2)

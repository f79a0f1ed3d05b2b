"""The lease of a worker: fresh only while nobody can have taken its runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import machina
from machina.errors import StoreDown
from machina.settings import Settings
from machina.store import open_store
from machina.store.leases import WorkerLease
from machina.worker.lease import LeaseKeeper, Leases, elapsed, presence

LEASE = 0.6


class Cable:
    """The real store's leases behind a cable that can be pulled."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings.model_validate({"data_dir": data_dir})
        self.pulled = threading.Event()
        self.stalled = threading.Event()
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Leases]:
        self.opened += 1
        await self.pass_through()
        async with open_store(self.settings) as store:
            yield _Plugged(self, store.leases)

    async def pass_through(self) -> None:
        if self.pulled.is_set():
            raise StoreDown("the cable is pulled")
        while self.stalled.is_set():  # noqa: ASYNC110 -- set by another thread
            await asyncio.sleep(0.01)

    def rows(self) -> list[WorkerLease]:
        async def look() -> list[WorkerLease]:
            async with open_store(self.settings) as store:
                return await store.leases.workers()

        return asyncio.run(look())

    def bury(self) -> None:
        """What a reaper does that believes the worker dead."""

        async def act() -> None:
            async with open_store(self.settings) as store:
                buried = False
                while not buried:
                    [row] = await store.leases.workers()
                    buried = await store.leases.bury(row.worker, row.beat)

        asyncio.run(act())


class _Plugged:
    def __init__(self, cable: Cable, leases: Leases) -> None:
        self._cable = cable
        self._leases = leases

    async def register(self, worker: str, info: Mapping[str, Any]) -> None:
        await self._cable.pass_through()
        await self._leases.register(worker, info)

    async def renew(self, worker: str) -> bool:
        await self._cable.pass_through()
        return await self._leases.renew(worker)

    async def release(self, worker: str) -> None:
        await self._cable.pass_through()
        await self._leases.release(worker)


@pytest.fixture
def cable(tmp_path: Path) -> Cable:
    return Cable(tmp_path)


class Kept:
    """A running keeper and what it told."""

    def __init__(self, cable: Cable, clock: Callable[[], float]) -> None:
        self.registered: list[str] = []
        self.lost: list[str] = []
        self.fresh_when_registered: list[bool] = []
        numbers = iter(range(100))
        self.keeper = LeaseKeeper(
            cable.open,
            presence(["high_priority"], 7),
            mint=lambda: f"w{next(numbers)}",
            lease_seconds=LEASE,
            on_registered=self._note,
            on_lost=self.lost.append,
            clock=clock,
        )

    def _note(self, worker: str) -> None:
        self.registered.append(worker)
        self.fresh_when_registered.append(self.keeper.is_fresh())


@contextmanager
def kept(cable: Cable, clock: Callable[[], float] = elapsed) -> Iterator[Kept]:
    keeping = Kept(cable, clock)
    keeping.keeper.start()
    yield keeping
    keeping.keeper.stop()


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_the_row_says_who_the_worker_is(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
        [row] = cable.rows()
        assert row.worker == keeping.keeper.worker_id == "w0"
        assert row.info["queues"] == ["high_priority"]
        assert row.info["threads"] == 7
        assert row.info["version"] == machina.__version__
        assert {"host", "pid", "started"} <= row.info.keys()


def test_the_lease_is_not_fresh_before_the_store_answered(cable: Cable) -> None:
    cable.stalled.set()
    with kept(cable) as keeping:
        eventually(lambda: cable.opened)
        assert not keeping.keeper.is_fresh()
        cable.stalled.clear()
        eventually(keeping.keeper.is_fresh)
        assert keeping.fresh_when_registered == [False]


def test_the_lease_stays_fresh_over_many_leases(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
        [before] = cable.rows()
        eventually(lambda: cable.rows()[0].beat >= before.beat + 5)
        assert keeping.keeper.is_fresh()
        assert keeping.lost == []


def test_the_row_is_gone_when_the_worker_stopped(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
    assert cable.rows() == []
    assert not keeping.keeper.is_fresh()


def test_a_buried_worker_is_told_and_registers_under_a_new_name(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
        cable.bury()
        eventually(lambda: keeping.registered == ["w0", "w1"])
        assert keeping.lost == ["w0"]
        eventually(keeping.keeper.is_fresh)
        assert keeping.keeper.worker_id == "w1"
        assert [row.worker for row in cable.rows()] == ["w1"]
        assert keeping.fresh_when_registered == [False, False]


def test_an_outage_of_the_store_makes_the_lease_stale_and_ends_nothing(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
        cable.pulled.set()
        eventually(lambda: not keeping.keeper.is_fresh())
        cable.pulled.clear()
        eventually(keeping.keeper.is_fresh)
        assert (keeping.registered, keeping.lost) == (["w0"], [])


def test_a_store_that_never_answers_does_not_stop_the_beats_for_ever(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
        cable.stalled.set()
        eventually(lambda: not keeping.keeper.is_fresh())
        cable.stalled.clear()
        eventually(keeping.keeper.is_fresh)
        assert keeping.lost == []


def test_a_worker_starts_when_the_store_comes_later(cable: Cable) -> None:
    cable.pulled.set()
    with kept(cable) as keeping:
        eventually(lambda: cable.opened)
        cable.pulled.clear()
        eventually(keeping.keeper.is_fresh)
        assert keeping.registered == ["w0"]


def test_the_lease_is_stale_at_once_when_the_process_was_stopped_for_longer(cable: Cable) -> None:
    leap = 0.0
    with kept(cable, clock=lambda: time.monotonic() + leap) as keeping:
        eventually(keeping.keeper.is_fresh)
        cable.stalled.set()  # the process wakes, and its next beat is still under way
        leap = LEASE
        assert not keeping.keeper.is_fresh()
        cable.stalled.clear()
        eventually(keeping.keeper.is_fresh)


def test_freshness_ends_before_the_lease_does(cable: Cable) -> None:
    now = [100.0]
    with kept(cable, clock=lambda: now[0]) as keeping:
        eventually(keeping.keeper.is_fresh)
        cable.pulled.set()
        now[0] += LEASE * 0.8
        assert keeping.keeper.is_fresh()
        now[0] += LEASE * 0.15
        assert not keeping.keeper.is_fresh()
        cable.pulled.clear()


def test_the_keeper_beats_while_the_process_computes(cable: Cable) -> None:
    with kept(cable) as keeping:
        eventually(keeping.keeper.is_fresh)
        until = time.monotonic() + 2 * LEASE
        while time.monotonic() < until:  # holds the interpreter as a busy event loop does
            sum(range(1_000))
        assert keeping.keeper.is_fresh()
        assert keeping.lost == []


def test_stopping_is_quick_when_the_store_is_away(cable: Cable) -> None:
    keeping = Kept(cable, elapsed)
    keeping.keeper.start()
    eventually(keeping.keeper.is_fresh)
    cable.pulled.set()
    began = time.monotonic()
    keeping.keeper.stop()
    assert time.monotonic() - began < 1.0
    assert not keeping.keeper.is_fresh()


def test_a_keeper_that_never_started_stops(cable: Cable) -> None:
    Kept(cable, elapsed).keeper.stop()
    assert cable.opened == 0


def test_the_clock_rises() -> None:
    assert elapsed() <= elapsed()

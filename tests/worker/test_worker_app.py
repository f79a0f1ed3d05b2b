"""The worker process from wake-up to hand-back, on a real queue and a real lease."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dramatiq.worker import ConsumerThread
from structlog.testing import capture_logs

from machina.errors import SettingsInvalid
from machina.ids import RunId
from machina.observability.sampling import Readings
from machina.observability.supervision import Background
from machina.queue import keys
from machina.queue.enqueue import Enqueuer, make_queue_client
from machina.queue.names import Queue
from machina.settings import Settings
from machina.store import open_store
from machina.worker import app, intake
from machina.worker.app import Seat, run_worker
from machina.worker.interrupts import Interrupt
from tests.running import eventually
from tests.services import RedisServer, off_loop

NAMESPACE = keys.namespace("machina")


def run_id(number: int) -> RunId:
    return RunId(f"{number:024x}")


class ScriptedCrew:
    """Executes by waiting; interrupted, it needs a moment to hand a run back."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.holders: list[str] = []
        self.began: list[RunId] = []
        self.ended: list[tuple[RunId, Interrupt | None]] = []
        self.hand_back_seconds = 0.0
        self.stubborn = False
        self.most = 0
        self.notes: list[str] = []
        self.loops: dict[str, int] = {"loop": 0}
        self._gates: dict[RunId, asyncio.Future[Interrupt | None]] = {}

    @property
    def background(self) -> Mapping[str, Background]:
        return {"loop": self._loop}

    @property
    def readings(self) -> Readings:
        return {}

    async def _loop(self) -> None:
        self.loops["loop"] += 1
        await asyncio.Event().wait()

    def hold_as(self, worker_id: str) -> None:
        self.holders.append(worker_id)

    async def execute(self, run_id: RunId) -> None:
        self.began.append(run_id)
        gate = self._gates[run_id] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self._gates))
        reason = None
        try:
            reason = await gate
            await asyncio.sleep(self.hand_back_seconds)
            if self.stubborn:
                await asyncio.Event().wait()
        finally:
            del self._gates[run_id]
            self.ended.append((run_id, reason))
            self.notes.append("ended")

    def finish(self, run_id: RunId) -> None:
        self._gates[run_id].set_result(None)

    def interrupt_all(self, reason: Interrupt) -> None:
        self.notes.append(str(reason))
        for gate in self._gates.values():
            if not gate.done():
                gate.set_result(reason)

    async def flush(self) -> None:
        self.notes.append("flushed")


@dataclass
class Running:
    """A worker process under test."""

    settings: Settings
    enqueue: Callable[[int, Queue], Any]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    crews: list[ScriptedCrew] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def crew(self) -> ScriptedCrew:
        return self.crews[0]

    async def stopped(self) -> None:
        """Asks it to stop and waits until it has."""
        assert self.task is not None
        self.stop.set()
        await self.task


@asynccontextmanager
async def working(server: RedisServer, data_dir: Path, threads: int = 10) -> AsyncIterator[Running]:
    settings = Settings.model_validate(
        {"redis_url": server.url, "data_dir": data_dir, "lease_seconds": 1}
    )
    client = make_queue_client(server.url)
    enqueuer = Enqueuer(client, settings.key_prefix)
    running = Running(settings, lambda number, queue: enqueuer.enqueue_run(run_id(number), queue))

    @asynccontextmanager
    async def factory(seat: Seat) -> AsyncIterator[ScriptedCrew]:
        crew = ScriptedCrew(seat)
        running.crews.append(crew)
        yield crew
        crew.notes.append("closed")

    running.task = asyncio.create_task(
        run_worker(
            settings,
            queues=list(Queue),
            threads=threads,
            stop=running.stop,
            execute_factory=factory,
        )
    )
    try:
        await eventually(lambda: bool(running.crews and running.crew.holders))
        yield running
        await running.stopped()
    finally:
        running.task.cancel()
        with suppress(asyncio.CancelledError):
            await running.task
        await client.aclose()


async def leases(settings: Settings) -> list[str]:
    async with open_store(settings) as store:
        return [row.worker for row in await store.leases.workers()]


async def test_a_wake_up_of_each_queue_becomes_a_run(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path) as worker:
        for number, queue in enumerate(Queue):
            await worker.enqueue(number, queue)
        await eventually(lambda: len(worker.crew.began) == 4)
        assert await leases(worker.settings) == worker.crew.holders
        assert worker.crew.seat.may_commit()
        for number in range(4):
            worker.crew.finish(run_id(number))
        await eventually(lambda: len(worker.crew.ended) == 4)
    assert {reason for _, reason in worker.crew.ended} == {None}
    assert await leases(worker.settings) == []


async def test_no_more_runs_are_in_flight_than_there_are_threads(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path, threads=2) as worker:
        for number in range(6):
            await worker.enqueue(number, Queue.NORMAL)
        began = worker.crew.began
        for position in range(6):
            await eventually(functools.partial(lambda at: len(began) > at, position))
            worker.crew.finish(began[position])
        assert worker.crew.most <= 2
        assert sorted(began) == [run_id(number) for number in range(6)]


async def test_stopping_hands_back_then_flushes_then_closes(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path) as worker:
        worker.crew.hand_back_seconds = 0.2
        await worker.enqueue(1, Queue.STREAMING)
        await worker.enqueue(2, Queue.LOW)
        await eventually(lambda: len(worker.crew.began) == 2)
        await worker.stopped()
    assert {reason for _, reason in worker.crew.ended} == {Interrupt.DRAIN}
    assert worker.crew.notes == ["drain", "ended", "ended", "flushed", "closed"]
    assert await leases(worker.settings) == []


async def test_nothing_is_taken_any_more_when_the_worker_stops(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path) as worker:
        worker.crew.hand_back_seconds = 0.3
        await worker.enqueue(1, Queue.HIGH)
        await eventually(lambda: len(worker.crew.began) == 1)
        worker.stop.set()
        await eventually(lambda: "drain" in worker.crew.notes)
        await worker.enqueue(2, Queue.HIGH)
        await worker.stopped()
    assert worker.crew.began == [run_id(1)]
    with redis_server.connect() as client:
        assert await asyncio.to_thread(client.llen, f"{NAMESPACE}:{Queue.HIGH}") == 1


async def test_every_waiting_run_is_either_taken_or_still_queued_when_the_worker_stops(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path, threads=1_000) as worker:
        for number in range(100):
            await worker.enqueue(number, Queue.NORMAL)
        worker.stop.set()
        await worker.stopped()
    with redis_server.connect() as client:
        left = await asyncio.to_thread(client.llen, f"{NAMESPACE}:{Queue.NORMAL}")
    assert len(worker.crew.began) + left == 100
    assert len(worker.crew.ended) == len(worker.crew.began)


async def test_an_idle_worker_stops_within_a_second_and_a_half(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path) as worker, asyncio.timeout(None) as clock:
        clock.reschedule(asyncio.get_running_loop().time() + 1.5)
        await worker.stopped()


async def test_a_stop_is_bounded_when_redis_does_not_answer(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with working(own_redis, tmp_path) as worker:
        with own_redis.frozen():
            async with asyncio.timeout(3):
                await worker.stopped()


async def test_what_does_not_hand_back_in_time_is_cancelled(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HAND_BACK_SECONDS", 0.05)
    async with working(redis_server, tmp_path) as worker:
        worker.crew.stubborn = True
        await worker.enqueue(1, Queue.HIGH)
        await eventually(lambda: len(worker.crew.began) == 1)
        with capture_logs() as logs:
            await worker.stopped()
    assert {"event": "worker.hand_back_incomplete", "runs": 1, "log_level": "error"} in logs
    assert worker.crew.ended == [(run_id(1), Interrupt.DRAIN)]


async def test_runs_are_left_and_a_new_name_is_taken_when_the_lease_was_lost(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path) as worker:
        await worker.enqueue(1, Queue.HIGH)
        await eventually(lambda: len(worker.crew.began) == 1)
        async with open_store(worker.settings) as store:
            buried = False
            while not buried:
                [row] = await store.leases.workers()
                buried = await store.leases.bury(row.worker, row.beat)
        await eventually(lambda: len(worker.crew.holders) == 2)
        await eventually(lambda: worker.crew.ended == [(run_id(1), Interrupt.FENCED)])
        assert await leases(worker.settings) == worker.crew.holders[1:]
        await worker.enqueue(2, Queue.HIGH)
        await eventually(lambda: len(worker.crew.began) == 2)


async def test_runs_flow_again_when_redis_was_killed_and_came_back(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    async with working(own_redis, tmp_path) as worker:
        await worker.enqueue(1, Queue.HIGH)
        await eventually(lambda: len(worker.crew.began) == 1)
        await off_loop(own_redis.restart)
        await worker.enqueue(2, Queue.HIGH)
        await eventually(lambda: len(worker.crew.began) == 2)
        assert worker.crew.ended == []


async def test_a_background_loop_that_dies_is_started_again(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    async with working(redis_server, tmp_path) as worker:
        supervisor = worker.crew.seat.supervisor
        assert supervisor.is_healthy
        supervisor.tasks["loop"].cancel()
        await eventually(lambda: not supervisor.is_healthy)
        await eventually(lambda: worker.crew.loops["loop"] == 2)
        await eventually(lambda: supervisor.is_healthy)


async def test_the_intake_starts_again_when_one_of_its_threads_ended(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "WATCH_SECONDS", 0.02)
    async with working(redis_server, tmp_path) as worker:
        supervisor = worker.crew.seat.supervisor
        first = [thread for thread in threading.enumerate() if isinstance(thread, ConsumerThread)]
        await eventually(lambda: all(thread.running for thread in first))
        with capture_logs() as logs:
            first[0].stop()
            await eventually(lambda: supervisor.failing == ("intake",))
            await eventually(lambda: supervisor.is_healthy)
        assert "background.ended" in [line["event"] for line in logs]
        assert not any(thread.is_alive() for thread in first)
        await worker.enqueue(1, Queue.HIGH)
        await eventually(lambda: worker.crew.began == [run_id(1)])


async def test_a_worker_without_a_redis_is_refused(tmp_path: Path) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "redis_url": None})

    @asynccontextmanager
    async def factory(seat: Seat) -> AsyncIterator[ScriptedCrew]:
        yield ScriptedCrew(seat)

    with pytest.raises(SettingsInvalid, match="REDIS_URL"):
        await run_worker(
            settings,
            queues=[Queue.LOW],
            threads=1,
            stop=asyncio.Event(),
            execute_factory=factory,
        )


async def test_the_lease_is_released_when_the_crew_cannot_be_opened(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "redis_url": redis_server.url})

    async def break_down() -> None:
        raise RuntimeError("no engine")

    @asynccontextmanager
    async def factory(seat: Seat) -> AsyncIterator[ScriptedCrew]:
        await break_down()
        yield ScriptedCrew(seat)

    with pytest.raises(RuntimeError, match="no engine"):
        await run_worker(
            settings,
            queues=[Queue.LOW],
            threads=1,
            stop=asyncio.Event(),
            execute_factory=factory,
        )
    assert await leases(settings) == []

"""Takes wake-ups from the queue: Dramatiq's threads, and the way from them to the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog
from dramatiq import Worker

from machina.ids import RunId
from machina.observability.sampling import count_connections
from machina.queue.broker import DoorbellBroker
from machina.queue.consumer import HandOverRefused
from machina.queue.names import Queue
from machina.worker.actors import register

log = structlog.get_logger(__name__)

THREADS: Final = 4
"""Threads that hand over and acknowledge; how many runs are in flight does not depend on them."""
IDLE_WAKE_MS: Final = 500
"""How often an idle thread looks whether it should end; consumers block on bells for longer."""
STOP_SECONDS: Final = 1.5
WATCH_SECONDS: Final = 2.0


class IntakeBroken(Exception):
    """One of the threads ended by itself: the intake must start again."""


class Intake:
    """Consumes the queues of one worker process.

    `accept` is called on the event loop with the id of a run, and takes over one slot.
    """

    def __init__(
        self,
        make_broker: Callable[[], DoorbellBroker],
        queues: Sequence[Queue],
        accept: Callable[[RunId], None],
    ) -> None:
        self._make_broker = make_broker
        self._queues = queues
        self._accept = accept
        self._guard = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._working: _Working | None = None

    async def run(self) -> None:
        """Takes messages until `stop`; supervised by the owner.

        Raises:
            IntakeBroken: a thread ended by itself; run it again.
        """
        await self.stop()  # what a broken one left behind
        if self._closed:
            return
        self._loop = asyncio.get_running_loop()
        broker = self._make_broker()
        register(broker, self._take, self._queues)
        self._working = working = _Working(broker)
        await asyncio.to_thread(working.start)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            ended = working.ended_threads()
            if ended:
                raise IntakeBroken(f"threads ended: {', '.join(ended)}")

    def close(self) -> None:
        """From now on no message is handed over; what is fetched goes back to its queue."""
        with self._guard:
            self._closed = True

    def redis_connections(self) -> int:
        """The connections that its threads share."""
        return self._working.redis_connections() if self._working is not None else 0

    async def stop(self) -> None:
        """Ends the threads and gives back what they hold, off the loop and within 1.5 s."""
        if self._working is None:
            return
        working, self._working = self._working, None
        await _in_thread(working.stop, STOP_SECONDS)

    def _take(self, run_id: RunId) -> None:
        with self._guard:
            if self._closed or self._loop is None:
                raise HandOverRefused
            try:
                self._loop.call_soon_threadsafe(self._accept, run_id)
            except RuntimeError as closed:
                raise HandOverRefused from closed


class _Working:
    """One Dramatiq worker with its broker; starts and stops in threads other than the loop's."""

    def __init__(self, broker: DoorbellBroker) -> None:
        self._broker = broker
        self._worker = Worker(broker, worker_threads=THREADS, worker_timeout=IDLE_WAKE_MS)
        self._guard = threading.Lock()

    def start(self) -> None:
        with self._guard:
            if not self._broker.stopping.is_set():
                self._worker.start()

    def ended_threads(self) -> list[str]:
        threads = (*self._worker.workers, *self._worker.consumers.values())
        return [thread.name for thread in threads if not thread.is_alive()]

    def redis_connections(self) -> int:
        return count_connections(self._broker.client)

    def stop(self) -> None:
        """Dramatiq stops one kind of thread after the other; told all at once, it is faster."""
        began = time.monotonic()
        with self._guard:  # a start under way comes to its end first
            for consumer in self._worker.consumers.values():
                consumer.stop()
            self._broker.stop_fetching()
        self._worker.stop(timeout=int(STOP_SECONDS * 1000))
        self._broker.close()
        log.info("intake.stopped", seconds=round(time.monotonic() - began, 2))


async def _in_thread(action: Callable[[], None], seconds: float) -> None:
    """Waits for a thread of its own, that may be left behind: a pool's would hold up the exit."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        try:
            action()
        except Exception:  # nobody else hears of it: the thread may outlive its caller
            log.exception("intake.stop_failed")
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="intake-stop", daemon=True).start()
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        log.warning("intake.stop_slow", seconds=seconds)

"""The lease of a worker process: one row in the store, renewed from a thread of its own.

The thread has its own event loop and its own connection to the store, so that neither a busy loop
nor a busy pool in the process makes its runs look abandoned. The row is the presence record too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

import machina
from machina.errors import StoreDown

log = structlog.get_logger(__name__)

BEATS_PER_LEASE: Final = 3.5
RETRY_SECONDS: Final = 0.25
MARGIN: Final = 0.1
"""The last part of a lease in which it does not count as fresh: an append may be under way."""
RELEASE_SECONDS: Final = 1.0
REOPEN_SECONDS: Final = 1.0


class Leases(Protocol):
    """What the keeper needs of the store. Every call raises `StoreDown` without an answer."""

    async def register(self, worker: str, info: Mapping[str, Any]) -> None: ...
    async def renew(self, worker: str) -> bool: ...
    async def release(self, worker: str) -> None: ...


OpenLeases = Callable[[], AbstractAsyncContextManager[Leases]]
"""Opens a connection of the keeper's own; called in its thread."""


def elapsed() -> float:
    """Seconds that never jump, and that also pass while the machine sleeps, where it can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def presence(queues: Sequence[str], threads: int) -> dict[str, Any]:
    """What a worker's row says about it: where it runs, what it takes, since when."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "queues": [str(queue) for queue in queues],
        "threads": threads,
        "version": machina.__version__,
        "started": datetime.now(UTC),
    }


class LeaseKeeper:
    """Registers this process, renews its lease, and says when it must not write.

    A store that does not answer only makes the lease stale: nothing is committed until it answers.
    Only the answer that the row is gone ends what this process holds: then `on_lost` is called with
    the old worker id and the process registers again under a new one. `on_registered` is called
    with each id before the lease counts as fresh. Both are called in the keeper's thread.
    """

    def __init__(
        self,
        open_leases: OpenLeases,
        info: Mapping[str, Any],
        *,
        mint: Callable[[], str],
        lease_seconds: float,
        on_registered: Callable[[str], None],
        on_lost: Callable[[str], None],
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._open_leases = open_leases
        self._info = info
        self._mint = mint
        self._lease = lease_seconds
        self._on_registered = on_registered
        self._on_lost = on_lost
        self._clock = clock
        self._id = mint()
        self._renewed: float | None = None
        self._quiet = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def worker_id(self) -> str:
        """The id to claim runs with. It changes when a lease was lost."""
        return self._id

    def is_fresh(self) -> bool:
        """Whether nobody can have taken this worker's runs yet; tells a stopped process too."""
        renewed = self._renewed
        return renewed is not None and self._clock() - renewed < self._lease * (1 - MARGIN)

    def start(self) -> None:
        """Starts the thread; the lease is not fresh before the store has answered."""
        self._thread.start()

    def stop(self, timeout: float = RELEASE_SECONDS + 1) -> None:
        """Releases the lease and ends the thread, within `timeout` seconds; blocking."""
        self._stopping.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # the loop is closed: the thread is past its end
                log.debug("lease.already_stopped")
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._main())
            except StoreDown as down:
                self._note_down(down)
                self._stopping.wait(REOPEN_SECONDS)
            except Exception:  # a thread that ends would end the lease: log, and start again
                log.exception("lease.thread_failed")
                self._stopping.wait(REOPEN_SECONDS)

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.create_task(self._keep())
        if self._stopping.is_set():
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _keep(self) -> None:
        async with self._open_leases() as leases:
            try:
                while True:
                    pause = await self._beat(leases)
                    await asyncio.sleep(pause)
            except asyncio.CancelledError:
                await self._release(leases)
                raise

    async def _beat(self, leases: Leases) -> float:
        """Registers or renews; returns how long to wait for the next beat, in seconds."""
        sent = self._clock()
        try:
            async with asyncio.timeout(self._lease):
                if self._renewed is None:
                    await leases.register(self._id, self._info)
                    log.info("lease.registered", worker=self._id)
                    self._on_registered(self._id)
                elif not await leases.renew(self._id):
                    self._lose()
                    return 0.0
        except (StoreDown, TimeoutError) as down:
            self._note_down(down)
            return RETRY_SECONDS
        if self._quiet:
            log.info("lease.store_back", worker=self._id)
            self._quiet = False
        self._renewed = sent
        return max(0.0, self._lease / BEATS_PER_LEASE - (self._clock() - sent))

    def _note_down(self, down: Exception) -> None:
        if not self._quiet:
            log.warning("lease.store_down", worker=self._id, error=str(down))
            self._quiet = True

    def _lose(self) -> None:
        lost = self._id
        self._renewed = None
        log.warning("lease.lost", worker=lost)
        self._on_lost(lost)
        self._id = self._mint()

    async def _release(self, leases: Leases) -> None:
        self._renewed = None
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await leases.release(self._id)
            log.info("lease.released", worker=self._id)
        except (StoreDown, TimeoutError) as down:  # it runs out by itself
            log.warning("lease.not_released", worker=self._id, error=str(down))

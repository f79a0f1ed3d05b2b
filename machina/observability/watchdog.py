"""Notices when something blocks the event loop, and says what. It never kills."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 0.5
LAG_SECONDS: Final = 2.0


def _ignore(late: float) -> None:
    """For loops whose lag nobody measures."""


class LoopWatchdog:
    """A thread that watches one event loop: every run of the process stands still with it."""

    def __init__(
        self,
        *,
        tick_seconds: float = TICK_SECONDS,
        lag_seconds: float = LAG_SECONDS,
        on_tick: Callable[[float], None] = _ignore,
    ):
        """`on_tick` is told twice a second how late the loop was, in seconds."""
        self._on_tick = on_tick
        self._tick = tick_seconds
        self._lag = lag_seconds
        self._stopping = threading.Event()
        self._seen = time.monotonic()
        self._loop_thread = 0

    async def run(self) -> None:
        """Watches the running loop until cancelled; supervised by the owner."""
        self._loop_thread = threading.get_ident()
        self._seen = time.monotonic()
        self._stopping = threading.Event()
        watcher = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        watcher.start()
        try:
            while True:
                await asyncio.sleep(self._tick)
                before, self._seen = self._seen, time.monotonic()
                self._on_tick(max(0.0, self._seen - before - self._tick))
        finally:
            self._stopping.set()

    def _watch(self) -> None:
        stopping = self._stopping
        reported = 0.0
        looked = time.monotonic()
        while not stopping.wait(self._tick):
            now = time.monotonic()
            stood_still = (
                now - looked > 2 * self._tick
            )  # then the whole process did, or the machine
            looked = now
            seen = self._seen
            if stood_still or now - seen <= self._lag or seen == reported:
                continue
            reported = seen
            frame = sys._current_frames().get(self._loop_thread)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            log.error("loop.blocked", seconds=round(now - seen, 1), stack=stack)

"""Keeps a process's background tasks alive, and says when one is not.

A reader, writer or listener that ends takes every stream with it in silence. Supervised, its end is
logged, readiness turns false, and it starts again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from machina.observability.metrics import Metrics, make_metrics

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 5.0
CANCEL_AGAIN_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.5
"""How long a task that was started again must run before it counts as well."""

Background = Callable[[], Awaitable[None]]
"""Runs until it is cancelled; called again after it ended in any other way."""


class Supervisor:
    """The background tasks of one process, each under a name. Use it on one event loop."""

    def __init__(
        self,
        *,
        first_pause: float = FIRST_PAUSE_SECONDS,
        longest_pause: float = LONGEST_PAUSE_SECONDS,
        settle: float = SETTLE_SECONDS,
        metrics: Metrics | None = None,
    ) -> None:
        """Pauses before a restart grow from `first_pause` to `longest_pause`, in seconds."""
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._settle = settle
        self._restarts = (metrics or make_metrics()).process.restarts
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failing: set[str] = set()

    @property
    def is_healthy(self) -> bool:
        """Whether every task is running: a condition of readiness."""
        return not self._failing

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the tasks that ended and do not run well yet."""
        return tuple(sorted(self._failing))

    @property
    def tasks(self) -> dict[str, asyncio.Task[None]]:
        """The tasks as they run now, by name; a cancelled one starts again."""
        return dict(self._running)

    def start(self, name: str, function: Background) -> None:
        """Runs `function` until `stop`, again whenever it ends.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._keepers:
            raise ValueError(f"a task named {name} is supervised already")
        self._restarts.labels(name)
        self._keepers[name] = asyncio.create_task(self._keep(name, function), name=f"keep {name}")

    async def stop(self, name: str) -> None:
        """Cancels a task and waits for its end; nothing for an unknown name."""
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        self._failing.discard(name)

    async def aclose(self) -> None:
        """Cancels every task, the last started first, and waits for their ends."""
        for name in reversed(tuple(self._keepers)):
            await self.stop(name)

    async def _keep(self, name: str, function: Background) -> None:
        pause = self._first_pause
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            task = self._running[name] = asyncio.create_task(_call(function), name=name)
            well = loop.call_later(self._settle, self._failing.discard, name)
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                while not task.done():
                    task.cancel()  # a library may swallow one: `asyncio.wait_for` before 3.12 does
                    await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS)
                raise
            finally:
                well.cancel()
                self._running.pop(name, None)
            self._failing.add(name)
            self._restarts.labels(name).inc()
            if loop.time() - began > 2 * self._longest_pause:
                pause = self._first_pause
            # From the loop, because a line that cannot be written must not stop the restart.
            loop.call_soon(
                functools.partial(
                    log.error,
                    "background.ended",
                    task=name,
                    restart_in_seconds=pause,
                    exc_info=None if task.cancelled() else task.exception(),
                )
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._longest_pause)


async def _call(function: Background) -> None:
    await function()

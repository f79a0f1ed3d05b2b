"""One task per run in this process: from the wake-up that started it to the slot it frees."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from machina.ids import RunId
from machina.queue.slots import Slots

log = structlog.get_logger(__name__)


class InFlight:
    """Turns accepted wake-ups into tasks. Lives on the event loop; `accept` takes over one slot."""

    def __init__(self, execute: Callable[[RunId], Awaitable[None]], slots: Slots) -> None:
        self._execute = execute
        self._slots = slots
        self._tasks: dict[RunId, asyncio.Task[None]] = {}
        self._again: set[RunId] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def accept(self, run_id: RunId) -> None:
        """Starts a task for a run.

        A wake-up for a run that is in flight here waits until that task has ended, because it may
        be the one that the task itself sent when it handed the run back. One of them is enough.
        """
        if run_id not in self._tasks:
            self._begin(run_id)
        elif run_id in self._again:
            self._slots.release()
        else:
            self._again.add(run_id)

    def close(self) -> None:
        """Wake-ups that wait for their run's task will not start another one."""
        self._closed = True

    async def wait_empty(self, seconds: float) -> int:
        """Waits up to `seconds` for every task to end; returns how many did not."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)
        return len(self._tasks)

    async def cancel(self) -> None:
        """Cancels what is left and waits for it."""
        left = list(self._tasks.values())
        for task in left:
            task.cancel("drain")
        if left:
            await asyncio.wait(left)

    def _begin(self, run_id: RunId) -> None:
        task = asyncio.create_task(self._run(run_id), name=f"run {run_id}")
        self._tasks[run_id] = task
        task.add_done_callback(lambda _: self._end(run_id))

    async def _run(self, run_id: RunId) -> None:
        try:
            await self._execute(run_id)
        except Exception:  # a defect must cost this run, not the worker; the reaper picks it up
            log.exception("execution.failed", run_id=run_id)

    def _end(self, run_id: RunId) -> None:
        del self._tasks[run_id]
        self._slots.release()
        if run_id in self._again:
            self._again.discard(run_id)
            if self._closed:
                self._slots.release()
            else:
                self._begin(run_id)

"""Loops that only make sense together: when one ends, all end, and the owner hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class LoopEnded(RuntimeError):
    """A loop that never ends by itself has ended."""


async def run_together(**loops: Coroutine[Any, Any, None]) -> None:
    """Runs the loops until cancelled.

    Unlike a task group, this also ends when a loop was cancelled from elsewhere or returned.

    Raises:
        Exception: what a loop raised.
        LoopEnded: a loop ended without an error.
    """
    tasks = [asyncio.create_task(loop, name=f"eventlog.{name}") for name, loop in loops.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()
    raise LoopEnded(", ".join(task.get_name() for task in done))

"""Runs background parts of a process for the length of a `with` block, as their owner would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def running(*runs: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs each `run` method as a task; one that ends by itself fails the test."""
    tasks = [asyncio.create_task(run()) for run in runs]
    try:
        await asyncio.sleep(0)  # lets them begin
        yield
        for task in tasks:
            if task.done():
                task.result()
                raise AssertionError("A background task ended by itself.")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def eventually(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Waits until `condition` holds; fails the test when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # anything can be asked, not only events
            await asyncio.sleep(0.005)

"""Waiting for something that nobody announces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], Awaitable[bool]], *, seconds: float, every: float = 0.05
) -> None:
    """Returns once the condition holds; asks again `every` so many seconds.

    Raises:
        TimeoutError: it did not hold within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # processes and files ring no bell
            await asyncio.sleep(every)

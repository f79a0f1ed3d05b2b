"""Awaiting redis-py without losing a cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import RedisError


async def ask(call: Any) -> Any:
    """The reply to a call of redis-py, which types its replies loosely.

    redis-py sends inside `asyncio.wait_for`, which until Python 3.12 swallows a cancellation that
    arrives as the send completes. A task that lost one so would never end; here it is raised.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        reply = await call
    except (RedisError, OSError):
        _raise_if_cancelled(task, before)
        raise
    _raise_if_cancelled(task, before)
    return reply


def _raise_if_cancelled(task: asyncio.Task[Any] | None, before: int) -> None:
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError

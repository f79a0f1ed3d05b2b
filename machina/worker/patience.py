"""Waits for a store that does not answer, for as long as a step of a run may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from machina.errors import StoreDown

T = TypeVar("T")

PATIENCE_SECONDS: Final = 30.0
"""How long a step waits for a store that does not answer before the attempt is given up."""
PAUSE_SECONDS: Final = 0.25


async def patiently(action: Callable[[], Awaitable[T]]) -> T:
    """Repeats an action that may be repeated until the store answers.

    Raises:
        StoreDown: it did not within `PATIENCE_SECONDS`.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await action()
        except StoreDown:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)

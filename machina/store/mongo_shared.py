"""One attempt for all who wait for the same thing, so that they fail together and not in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from machina.errors import StoreDown

Result = TypeVar("Result")


class Shared(Generic[Result]):
    """Makes something once and keeps it until it is forgotten. A failure is not kept."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        self._make = make
        self._task: asyncio.Task[Result] | None = None

    async def get(self) -> Result:
        """What was made, or the outcome of the attempt under way, or of a new one.

        Raises:
            StoreDown: it was closed meanwhile; whatever else the attempt raises.
        """
        task = self._task
        if task is None:
            task = self._task = asyncio.create_task(self._make())
            task.add_done_callback(self._settle)
        if task.done() and not task.cancelled():
            return task.result()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise  # only the one who waited was cancelled
            raise StoreDown("The store was closed.") from None

    def forget(self) -> None:
        """The next call makes it anew; an attempt under way counts as new."""
        if self._task is not None and self._task.done():
            self._task = None

    async def aclose(self) -> None:
        """Ends an attempt under way."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _settle(self, task: asyncio.Task[Result]) -> None:
        if (task.cancelled() or task.exception() is not None) and self._task is task:
            self._task = None

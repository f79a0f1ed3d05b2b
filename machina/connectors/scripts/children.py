"""The children of a worker process: at most so many, and each for one run and one script.

A child is used again only by the same run for the same content: what a script left behind in its
process can then be seen by nobody but itself, as it could in one process for the whole run.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from machina.connectors.scripts.process import ChildProcess

MAX_CALLS: Final = 50
"""Calls after which a child is replaced: its processor time counts over its whole life."""

Key = tuple[str, str]
"""Run id and hash of the script."""


@dataclass(eq=False, slots=True)
class Child:
    """A child and whether it may be used again; whoever has borrowed it says so."""

    key: Key
    process: ChildProcess
    calls: int = 0
    is_reusable: bool = field(default=False)


class Children:
    """Lends children. `start` makes one for a run."""

    def __init__(self, start: Callable[[str], Awaitable[ChildProcess]], *, limit: int) -> None:
        self._start = start
        self._limit = limit
        self._permits = asyncio.Semaphore(limit)
        self._starting = 0
        self._busy: set[Child] = set()
        self._idle: OrderedDict[Child, None] = OrderedDict()

    @asynccontextmanager
    async def lend(self, key: Key) -> AsyncIterator[Child]:
        """A child for one call; waits while all are busy."""
        async with self._permits, self._borrow(key) as child:
            yield child

    async def forget(self, run_id: str) -> None:
        """Ends all children of a run."""
        await self._end([child for child in (*self._idle, *self._busy) if child.key[0] == run_id])

    async def forget_idle(self, run_id: str) -> None:
        """Ends the children of a run that do nothing just now."""
        await self._end([child for child in self._idle if child.key[0] == run_id])

    async def _end(self, mine: list[Child]) -> None:
        for child in mine:
            self._idle.pop(child, None)
            child.is_reusable = False
            child.process.kill()
        await asyncio.gather(*(child.process.aclose() for child in mine))

    async def aclose(self) -> None:
        """Ends all children."""
        for run_id in {child.key[0] for child in (*self._idle, *self._busy)}:
            await self.forget(run_id)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle) + self._starting

    @asynccontextmanager
    async def _borrow(self, key: Key) -> AsyncIterator[Child]:
        child = self._take(key)
        if child is None:
            self._starting += 1
            try:
                await self._make_room()
                child = Child(key, await self._start(key[0]))
            finally:
                self._starting -= 1
        self._busy.add(child)
        child.is_reusable = False
        try:
            yield child
        finally:
            self._busy.discard(child)
            child.calls += 1
            if child.is_reusable and child.calls < MAX_CALLS and child.process.is_alive:
                self._idle[child] = None
            else:
                await child.process.aclose()

    def _take(self, key: Key) -> Child | None:
        for child in reversed(self._idle):
            if child.key == key and child.process.is_alive:
                del self._idle[child]
                return child
        return None

    async def _make_room(self) -> None:
        while self._idle and len(self) > self._limit:
            oldest, _ = self._idle.popitem(last=False)
            await oldest.process.aclose()

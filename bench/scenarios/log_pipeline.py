"""The bare commands an event log cannot do without, pipelined: XADD, PUBLISH, XREAD."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import uuid4

from machina.eventlog import make_log_client
from machina.events import Event, encode
from machina.ids import EventId

READ_ENTRIES = 2_048


class PipelinedLog:
    """Group commit without a timer, as the product's, and a reader of the logs that rang.

    It checks nothing: no fence, no repetition, no gap, no end, no expiry.
    """

    def __init__(self, url: str, runs: int, piece: Event, *, bell_per_event: bool) -> None:
        self.seen = [0] * runs
        self.ready = asyncio.Event()
        mark = uuid4().hex[:8]
        self._keys = [f"bare:{mark}:{index:06d}".encode() for index in range(runs)]
        self._index = {key: index for index, key in enumerate(self._keys)}
        self._channel = f"bare:{mark}"
        self._piece = piece
        self._said = [0] * runs
        self._per_event = bell_per_event
        self._pending: list[tuple[int, EventId, bytes]] = []
        self._rung: dict[int, None] = {}
        self._filled, self._bell = asyncio.Event(), asyncio.Event()
        self._commands = make_log_client(url)
        self._reading = make_log_client(url)

    async def append(self, index: int) -> None:
        """One more piece of run number `index`."""
        self._said[index] += 1
        id = EventId(1, self._said[index])
        self._pending.append((index, id, encode(id, self._piece)))
        self._filled.set()

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What must run meanwhile."""
        return [self._commit(), self._listen(), self._read()]

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._commands.aclose()
        await self._reading.aclose()

    async def _commit(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            taken, self._pending = self._pending, []
            pipeline = self._commands.pipeline(transaction=False)
            for index, id, line in taken:
                pipeline.xadd(self._keys[index], {b"d": line}, id=str(id))
                if self._per_event:
                    pipeline.publish(self._channel, self._keys[index])
            if not self._per_event:
                rang = dict.fromkeys(self._keys[index] for index, _, _ in taken)
                pipeline.publish(self._channel, b" ".join(rang))
            await pipeline.execute()

    async def _listen(self) -> None:
        async with self._reading.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            async for message in pubsub.listen():
                if message["type"] != "message":
                    self.ready.set()
                    continue
                for key in message["data"].split(b" "):
                    self._rung[self._index[key]] = None
                self._bell.set()

    async def _read(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            rung, self._rung = self._rung, {}
            streams: dict[Any, Any] = {self._keys[i]: f"1-{self.seen[i]}" for i in rung}
            found: Any = await self._reading.xread(streams, count=READ_ENTRIES)
            for key, entries in found:
                index = self._index[key]
                for id, _ in entries:
                    assert id == f"1-{self.seen[index] + 1}".encode()
                    self.seen[index] += 1

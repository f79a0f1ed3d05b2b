"""Reads the logs of all viewers of a process over a handful of connections.

A bell says which logs got entries; what rings during a read forms the next one. Only logs that
somebody waits for are read, each once for all its viewers. Bells can be lost, so every open log is
swept every few seconds and after a reconnect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Final, NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from machina.errors import LogDown
from machina.eventlog.asking import ask
from machina.eventlog.backoff import Backoff, make_rng
from machina.eventlog.keys import LogKeys
from machina.eventlog.listening import listen
from machina.eventlog.reads import LogReads
from machina.eventlog.subscription import Subscription
from machina.eventlog.sweep import sweep
from machina.eventlog.tail import Tail, contiguous
from machina.eventlog.together import run_together
from machina.events import Entry
from machina.ids import EventId, RunId
from machina.observability.metrics import Metrics, make_metrics

__all__ = ["EventLogReader", "LogState", "Subscription"]

log = structlog.get_logger(__name__)

RUN_ID_BYTES: Final = 24
READ_ENTRIES: Final = 2_048
READ_STREAMS: Final = 128
"""Bounds of one XREAD: streams, and entries over all its streams."""
CATCH_UPS: Final = 2
"""How many viewers may read by themselves at once."""


class LogState(NamedTuple):
    """What is there of a log."""

    exists: bool
    top: Entry | None
    """The newest entry."""


class EventLogReader:
    """Serves every viewer of one process. One per process, on one event loop."""

    def __init__(
        self,
        client: Redis,
        keys: LogKeys,
        *,
        sweep_seconds: float = 3.0,
        rng: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """`client` should have a small pool that waits; see `make_log_client`."""
        self._client = client
        self._keys = keys
        self._reads = LogReads(client)
        self._sweep_seconds = sweep_seconds
        self._rng = rng or make_rng()
        self._tails: dict[bytes, Tail] = {}
        self._rung: dict[Tail, None] = {}
        self._bell = asyncio.Event()
        self._sweep_now = asyncio.Event()
        self._catch_ups = asyncio.Semaphore(CATCH_UPS)
        self._count_hole = (metrics or make_metrics()).log.holes.inc

    async def run(self) -> None:
        """Feeds the subscriptions until cancelled. If it raises, call it again: they go on."""
        self._resume()
        bells = listen(
            self._client,
            self._keys.bells,
            self._hear,
            on_connected=self._resume,
            quiet_seconds=self._sweep_seconds,
            backoff=Backoff(self._rng),
        )
        await run_together(listen=bells, fetch=self._fetch_for_ever(), sweep=self._sweep_for_ever())

    @asynccontextmanager
    async def subscribe(self, run_id: RunId, *, after: EventId) -> AsyncIterator[Subscription]:
        """A reading of the run's log from after `after` on. Asks Redis nothing by itself."""
        name = run_id.encode("ascii")
        tail = self._tails.get(name)
        if tail is None:
            key = self._keys.events(run_id).encode()
            tail = self._tails[name] = Tail(run_id, key, after, self._count_hole)
        subscription = Subscription(run_id, tail, self, after)
        tail.viewers[subscription] = None
        try:
            yield subscription
        finally:
            subscription.close()
            del tail.viewers[subscription]
            if not tail.viewers:
                del self._tails[name]
                self._rung.pop(tail, None)

    async def inspect(self, run_id: RunId) -> LogState:
        """What is there of a run's log.

        Raises:
            LogDown: Redis did not answer.
        """
        key = self._keys.events(run_id).encode()
        try:
            top = await self._reads.newest(key)
            exists = top is not None or await self._reads.exists(key)
        except (RedisError, OSError) as error:
            raise LogDown("The event log did not answer; try again.") from error
        return LogState(exists, top)

    async def ping(self) -> bool:
        """Whether Redis answers, within the client's time limit."""
        try:
            return bool(await ask(self._client.ping()))
        except (RedisError, OSError):
            return False

    @property
    def open_streams(self) -> int:
        """How many logs have viewers."""
        return len(self._tails)

    @property
    def viewers(self) -> int:
        """How many subscriptions are open."""
        return sum(len(tail.viewers) for tail in self._tails.values())

    def request(self, tail: Tail) -> None:
        """Has the tail read by the next fetch. For subscriptions."""
        self._rung[tail] = None
        self._bell.set()

    async def read_after(self, key: bytes, cursor: EventId, count: int) -> list[Entry]:
        """At most `count` entries after `cursor`, for one viewer. Raises `RedisError`."""
        async with self._catch_ups:
            return await self._reads.after(key, cursor, count)

    def _hear(self, payload: bytes) -> None:
        for start in range(0, len(payload), RUN_ID_BYTES):
            tail = self._tails.get(payload[start : start + RUN_ID_BYTES])
            if tail is not None:
                self._touch(tail)

    def _touch(self, tail: Tail) -> None:
        tail.dirty = True
        if tail.waiting:
            self.request(tail)

    def _resume(self) -> None:
        for tail in self._tails.values():
            self._touch(tail)
        self._sweep_now.set()

    async def _fetch_for_ever(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            await self._bell.wait()
            self._bell.clear()
            rung, self._rung = self._rung, {}
            try:
                for count, tails in _group(rung):
                    await self._read(count, tails)
            except (RedisError, OSError) as error:
                if backoff.failures == 0:
                    log.warning("read.failed", error=repr(error), streams=len(rung))
                for tail in rung:
                    self._touch(tail)
                await asyncio.sleep(backoff.next_pause())
            else:
                backoff.reset()

    async def _read(self, count: int, tails: Sequence[Tail]) -> None:
        asked = {tail.key: (tail, tail.cursor) for tail in tails}
        for tail in tails:
            tail.dirty = False
        wanted = ((key, cursor) for key, (_, cursor) in asked.items())
        for key, entries in (await self._reads.many(wanted, count)).items():
            tail, cursor = asked[key]
            if tail.cursor == cursor:
                self._take_in(tail, entries, count)
            else:  # it was moved meanwhile
                self._touch(tail)

    def _take_in(self, tail: Tail, entries: Sequence[Entry], count: int) -> None:
        tail.pace.observe(len(entries), sum(len(entry.data) for entry in entries))
        sound = contiguous(tail.cursor, entries)
        tail.extend(entries[:sound])
        if sound < len(entries):
            found = entries[sound].id
            tail.note_hole(found)
            tail.disturb([viewer for viewer in tail.waiting if viewer.cursor < found])
            tail.wake(tail.waiting)  # those beyond the hole read by themselves
        elif len(entries) == count:
            self._touch(tail)

    async def _sweep_for_ever(self) -> None:
        while True:
            pause = self._sweep_seconds * self._rng.uniform(0.75, 1.25)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._sweep_now.wait()
            self._sweep_now.clear()
            try:
                for tails in _chunks(list(self._tails.values()), READ_STREAMS):
                    await sweep(tails, self._reads, self._touch)
            except (RedisError, OSError) as error:
                log.debug("sweep.failed", error=repr(error))


def _group(tails: Iterable[Tail]) -> Iterator[tuple[int, list[Tail]]]:
    """Tails that may share a command: the same number of entries, within the bounds of a read."""
    by_count: dict[int, list[Tail]] = {}
    for tail in tails:
        if tail.viewers:
            by_count.setdefault(tail.pace.count, []).append(tail)
    for count, alike in by_count.items():
        for chunk in _chunks(alike, min(READ_STREAMS, READ_ENTRIES // count)):
            yield count, chunk


def _chunks(tails: Sequence[Tail], size: int) -> Iterator[list[Tail]]:
    rest = iter(tails)
    while chunk := list(islice(rest, size)):
        yield chunk

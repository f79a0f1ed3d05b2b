"""The three reads of a log, as entries; nothing here waits for anything but Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import Redis

from machina.eventlog.asking import ask
from machina.events import Entry
from machina.ids import EventId


class LogReads:
    """Reads streams by key. Every call raises `redis.exceptions.RedisError` when Redis fails."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def after(self, key: bytes, cursor: EventId, count: int) -> list[Entry]:
        """At most `count` entries after `cursor` of one log."""
        return _parse(await ask(self._client.xrange(key, min=f"({cursor}", count=count)))

    async def many(
        self, wanted: Iterable[tuple[bytes, EventId]], count: int
    ) -> dict[bytes, list[Entry]]:
        """At most `count` entries after each cursor, of those logs that have any. One command."""
        streams: dict[Any, Any] = {key: str(cursor) for key, cursor in wanted}
        reply = await ask(self._client.xread(streams, count=count))
        return {key: _parse(raw) for key, raw in reply}

    async def newest(self, key: bytes) -> Entry | None:
        """The newest entry of one log."""
        entries = _parse(await ask(self._client.xrevrange(key, count=1)))
        return entries[0] if entries else None

    async def exists(self, key: bytes) -> bool:
        """Whether there is a log, be it empty."""
        return bool(await ask(self._client.exists(key)))


def _parse(raw: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
    entries = []
    for name, fields in raw:
        attempt, _, seq = name.partition(b"-")
        entries.append(Entry(EventId(int(attempt), int(seq)), fields[b"d"]))
    return entries

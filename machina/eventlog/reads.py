"""The reads of a log, as entries; nothing here waits for anything but Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

from machina.eventlog.asking import ask
from machina.eventlog.clients import commands_of
from machina.events import Entry
from machina.ids import EventId

_new = tuple.__new__


class LogReads:
    """Reads streams by key. Every call raises `redis.exceptions.RedisError` when Redis fails."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._commands = commands_of(client)

    async def after(self, key: bytes, cursor: EventId, count: int) -> list[Entry]:
        """At most `count` entries after `cursor` of one log."""
        return _parse(await ask(self._client.xrange(key, min=f"({cursor}", count=count)))

    async def many(
        self, wanted: Iterable[tuple[bytes, EventId]], count: int
    ) -> dict[bytes, list[Entry]]:
        """At most `count` entries after each cursor, of those logs that have any. One command."""
        keys, cursors = [], []
        for key, cursor in wanted:
            keys.append(key)
            cursors.append(str(cursor))
        reply = await self._commands.execute("XREAD", "COUNT", count, "STREAMS", *keys, *cursors)
        streams = reply.items() if isinstance(reply, dict) else reply or ()  # RESP3 has a map
        return {key: [_entry(id, fields[1]) for id, fields in raw] for key, raw in streams}

    async def newest(self, key: bytes) -> Entry | None:
        """The newest entry of one log."""
        entries = _parse(await ask(self._client.xrevrange(key, count=1)))
        return entries[0] if entries else None

    async def exists(self, key: bytes) -> bool:
        """Whether there is a log, be it empty."""
        return bool(await ask(self._client.exists(key)))


def _parse(raw: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
    return [_entry(name, fields[b"d"]) for name, fields in raw]


def _entry(name: bytes, data: bytes) -> Entry:
    attempt, _, seq = name.partition(b"-")
    # Straight to the tuple: the constructor of a named one costs three times as much.
    return _new(Entry, (_new(EventId, (int(attempt), int(seq))), data))

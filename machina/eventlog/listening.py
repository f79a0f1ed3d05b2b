"""One Pub/Sub channel, heard for ever: reconnects, and notices a connection that died silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from machina.eventlog.asking import ask
from machina.eventlog.backoff import Backoff
from machina.eventlog.clients import LogClient

log = structlog.get_logger(__name__)


async def listen(
    client: Redis,
    channel: str,
    on_message: Callable[[bytes], None],
    *,
    on_connected: Callable[[], None],
    quiet_seconds: float,
    backoff: Backoff,
) -> None:
    """Calls `on_message` for every message, until cancelled. Holds one connection.

    `on_connected` is called after every (re)connect: what was published in between is lost. After
    `quiet_seconds` of silence the server is pinged; after as much again the connection is dropped.
    """

    def connected() -> None:
        backoff.reset()
        on_connected()

    by_hand = isinstance(client, LogClient) and client.can_be_spoken_to
    while True:
        ear = _Ear(on_message, connected)
        try:
            if by_hand:
                await _hear_directly(cast(LogClient, client), channel, ear, quiet_seconds)
            else:
                await _hear_pooled(client, channel, ear, quiet_seconds)
        except (RedisError, OSError) as error:
            if backoff.failures == 0:
                log.warning("listener.disconnected", channel=channel, error=repr(error))
            await asyncio.sleep(backoff.next_pause())


async def _hear_directly(client: LogClient, channel: str, ear: _Ear, quiet_seconds: float) -> None:
    """One connection by hand, to its end."""
    connection, _ = await client.connect(ear.hear, ear.lose)
    try:
        connection.send("SUBSCRIBE", channel)
        while True:
            if not await ear.heard_within(quiet_seconds):
                connection.send("PING")
                if not await ear.heard_within(quiet_seconds):
                    raise RedisConnectionError("The server does not answer.")
    finally:
        ear.close()
        await connection.aclose()


class _Ear:
    """What one connection has heard so far, and how it ended."""

    def __init__(
        self, on_message: Callable[[bytes], None], on_connected: Callable[[], None]
    ) -> None:
        self.on_message = on_message
        self.on_connected = on_connected
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard = 0

    def hear(self, reply: Any) -> None:
        """Takes one reply of the server."""
        self._heard += 1
        if isinstance(reply, Exception):
            self.lose(reply)
        elif isinstance(reply, list) and not self._end.done():
            try:
                if reply[0] == b"message":
                    self.on_message(reply[2])
                elif reply[0] == b"subscribe":
                    self.on_connected()
            except Exception as error:  # noqa: BLE001  # raised where the listener is awaited
                self.lose(error)

    def lose(self, error: Exception) -> None:
        """Takes the end; the first one counts."""
        if not self._end.done():
            self._end.set_exception(error)

    async def heard_within(self, seconds: float) -> bool:
        """Whether anything was said during that time. Raises what ended the connection."""
        before = self._heard
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._end)
        return self._heard > before

    def close(self) -> None:
        """Nothing is heard any more."""
        if self._end.done() and not self._end.cancelled():
            self._end.exception()  # looked at: it was raised, or no longer matters
        self._end.cancel()


async def _hear_pooled(client: Redis, channel: str, ear: _Ear, quiet_seconds: float) -> None:
    """One connection of redis-py, to its end."""
    async with client.pubsub() as pubsub:
        await ask(pubsub.subscribe(channel))
        while True:
            message = await _next_message(pubsub, quiet_seconds)
            if message["type"] == "message":
                ear.on_message(message["data"])
            elif message["type"] == "subscribe":
                ear.on_connected()


async def _next_message(pubsub: PubSub, quiet_seconds: float) -> dict[str, Any]:
    pinged = False
    while True:
        message: dict[str, Any] | None = await ask(pubsub.get_message(timeout=quiet_seconds))
        if message is not None:
            return message
        if pinged:
            raise RedisConnectionError("The server does not answer.")
        await ask(pubsub.ping())
        pinged = True

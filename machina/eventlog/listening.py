"""One Pub/Sub channel, heard for ever: reconnects, and notices a connection that died silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from machina.eventlog.asking import ask
from machina.eventlog.backoff import Backoff

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
    while True:
        try:
            async with client.pubsub() as pubsub:
                await ask(pubsub.subscribe(channel))
                while True:
                    message = await _next_message(pubsub, quiet_seconds)
                    if message["type"] == "message":
                        on_message(message["data"])
                    elif message["type"] == "subscribe":
                        backoff.reset()
                        on_connected()
        except (RedisError, OSError) as error:
            if backoff.failures == 0:
                log.warning("listener.disconnected", channel=channel, error=repr(error))
            await asyncio.sleep(backoff.next_pause())


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

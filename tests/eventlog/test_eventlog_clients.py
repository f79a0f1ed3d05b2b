"""The Redis clients of the log, and that a cancellation is not lost in them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from machina.eventlog.asking import ask
from machina.eventlog.clients import MOST_CONNECTIONS, make_log_client
from tests.services import RedisServer


async def _ping(client: Redis) -> bool:
    reply: Any = client.ping()
    return bool(await reply)


async def test_a_client_waits_for_a_connection_instead_of_failing(
    redis_server: RedisServer,
) -> None:
    client = make_log_client(redis_server.url)
    assert all(await asyncio.gather(*(_ping(client) for _ in range(200))))
    with redis_server.connect() as outside:
        assert len(outside.client_list()) == MOST_CONNECTIONS + 1
    await client.aclose()


async def test_a_command_has_a_time_limit(redis_server: RedisServer) -> None:
    client = make_log_client(redis_server.url)
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 5
    await client.aclose()


async def test_a_cancellation_is_raised_even_when_the_call_swallowed_it() -> None:
    started = asyncio.Event()

    async def swallows() -> str:
        started.set()
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            return "as if nothing had happened"
        return "late"

    task = asyncio.create_task(ask(swallows()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_call_ends_at_whatever_point_it_is_cancelled(
    redis_server: RedisServer,
) -> None:
    commands = make_log_client(redis_server.url)

    async def for_ever() -> None:
        while True:
            await ask(commands.ping())

    for turns in range(40):
        task = asyncio.create_task(for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(4):
            await asyncio.wait([task])
    assert len(commands.connection_pool._in_use_connections) == 0
    await commands.aclose()

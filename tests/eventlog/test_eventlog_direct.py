"""The connection that is spoken by hand: order, refusals, time limits and losses, on real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis import exceptions
from redis.asyncio import Redis, SSLConnection

from machina.eventlog.clients import LogClient, commands_of, make_log_client
from machina.eventlog.direct import Direct
from machina.eventlog.protocol import Pooled, make_error
from tests.services import RedisServer


@pytest.fixture
async def client(own_redis: RedisServer) -> AsyncIterator[LogClient]:
    commands = make_log_client(own_redis.url)
    yield commands
    await commands.aclose()


async def test_each_command_gets_its_own_reply_when_many_share_the_connection(
    client: LogClient,
) -> None:
    replies = await asyncio.gather(*(client.commands.execute("ECHO", str(i)) for i in range(500)))
    assert replies == [str(i).encode() for i in range(500)]
    clients: list[dict[str, str]] = await client.client_list()
    assert len(clients) == 2  # this one, and redis-py's that asks
    assert client.spoken_connections == 1
    await client.commands.aclose()
    assert client.spoken_connections == 0


async def test_the_order_holds_when_a_caller_was_cancelled(client: LogClient) -> None:
    await client.commands.execute("PING")
    doomed = asyncio.create_task(client.commands.execute("ECHO", "doomed"))
    await asyncio.sleep(0)
    doomed.cancel()
    assert await client.commands.execute("ECHO", "next") == b"next"
    assert doomed.cancelled()


async def test_a_refusal_is_raised_by_its_name_and_the_connection_goes_on(
    client: LogClient,
) -> None:
    with pytest.raises(exceptions.NoScriptError, match="NOSCRIPT"):
        await client.commands.execute("EVALSHA", "0" * 40, 0)
    await client.set("text", "x")
    with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
        await client.commands.execute("XLEN", "text")
    assert await client.commands.execute("PING") == b"PONG"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed", exceptions.OutOfMemoryError),
        ("LOADING Redis is loading", exceptions.BusyLoadingError),
        ("READONLY You can't write", exceptions.ReadOnlyError),
        ("WRONGPASS invalid", exceptions.AuthenticationError),
        ("NOAUTH Authentication required.", exceptions.AuthenticationError),
        ("NOPERM this user", exceptions.NoPermissionError),
        ("MISCONF Redis is configured", exceptions.ResponseError),
    ],
)
def test_the_servers_words_become_the_errors_of_redis_py(
    text: str, kind: type[exceptions.RedisError]
) -> None:
    error = make_error(text)
    assert type(error) is kind
    assert text in str(error)


async def test_everybody_hears_of_a_lost_connection_and_the_next_command_opens_another(
    client: LogClient,
) -> None:
    await client.commands.execute("PING")
    waiting = [
        asyncio.create_task(client.commands.execute("BLPOP", "nothing", 60)) for _ in range(3)
    ]
    await asyncio.sleep(0)
    await client.client_kill_filter(_type="normal", skipme=True)
    for one in waiting:
        with pytest.raises(exceptions.ConnectionError):
            await one
    assert await client.commands.execute("PING") == b"PONG"


async def test_a_server_that_does_not_answer_counts_as_dead_in_time(
    own_redis: RedisServer,
) -> None:
    commands = make_log_client(own_redis.url)
    direct = Direct(commands.connect, 0.2)
    try:
        with pytest.raises(exceptions.TimeoutError, match=r"0\.2 s"):
            await direct.execute("BLPOP", "nothing", 60)
        assert await direct.execute("PING") == b"PONG"
    finally:
        await direct.aclose()
        await commands.aclose()


async def test_password_and_database_of_the_address_are_used(own_redis: RedisServer) -> None:
    async with Redis.from_url(own_redis.url) as admin:
        await admin.config_set("requirepass", "sesame")
        try:
            path = own_redis.url.removeprefix("unix://")
            good = make_log_client(f"unix://:sesame@{path}?db=3")
            await good.commands.execute("SET", "where", "three")
            assert await good.get("where") == b"three"
            bad = make_log_client(f"unix://:wrong@{path}")
            with pytest.raises(exceptions.AuthenticationError):
                await bad.commands.execute("PING")
            await good.aclose()
            await bad.aclose()
        finally:
            await admin.config_set("requirepass", "")


async def test_nobody_is_reached_when_there_is_no_server() -> None:
    commands = make_log_client("redis://127.0.0.1:1")
    with pytest.raises(OSError, match="Connect call failed"):
        await commands.commands.execute("PING")
    await commands.aclose()


async def test_redis_py_speaks_to_servers_behind_tls_and_to_clients_made_elsewhere() -> None:
    commands = make_log_client("rediss://127.0.0.1:1")
    assert commands.connection_pool.connection_class is SSLConnection
    assert not commands.can_be_spoken_to
    assert isinstance(commands_of(commands), Pooled)
    await commands.aclose()


async def test_replies_are_the_same_when_redis_py_asks(client: LogClient) -> None:
    pooled = Pooled(client)
    await client.xadd("log", {"d": "x"}, id="1-1")
    ask = ("XREAD", "COUNT", 5, "STREAMS", "log", "0-0")
    assert await pooled.execute(*ask) == await client.commands.execute(*ask)
    with pytest.raises(exceptions.ResponseError):
        await pooled.execute("EVALSHA", "0" * 40, 0)
    await pooled.aclose()

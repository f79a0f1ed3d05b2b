"""What every test gets: no blocking calls from our code in the event loop, and real servers."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import structlog
from blockbuster import blockbuster_ctx
from redis.asyncio import Redis

from machina.eventlog.clients import make_log_client
from tests.services import RedisServer, find_redis_6, find_redis_7, require


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """In asynchronous tests, a blocking call below a frame of `machina` is an error."""
    with ExitStack() as stack:
        if inspect.iscoroutinefunction(getattr(request, "function", None)):
            stack.enter_context(blockbuster_ctx("machina"))
        yield


@pytest.fixture(autouse=True)
def logs_of_its_own() -> None:
    """Every level can be captured, whatever process an earlier test has set logging up for."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def redis_6() -> Iterator[RedisServer]:
    """The Redis 6.2 that `dev` carries, shared by the session: the oldest we support."""
    server = RedisServer(require(find_redis_6, optional=False))
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_7() -> Iterator[RedisServer]:
    """The distribution's Redis 7, shared by the session."""
    server = RedisServer(require(find_redis_7, optional=True))
    yield server
    server.close()


@pytest.fixture
def redis_server(redis_6: RedisServer) -> RedisServer:
    """A running, empty Redis. Do not kill or freeze it: that is what `own_redis` is for."""
    return empty(redis_6)


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed, frozen and restarted."""
    server = RedisServer(require(find_redis_6, optional=False))
    yield server
    server.close()


@pytest.fixture
async def log_client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """The command client of the event log on `redis_server`."""
    commands = make_log_client(redis_server.url)
    yield commands
    await commands.aclose()


def empty(server: RedisServer) -> RedisServer:
    """The same server without a key or a script."""
    with server.connect() as client:
        client.flushall()
        client.script_flush()
    return server

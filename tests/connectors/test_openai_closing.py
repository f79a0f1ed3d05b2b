"""Whoever stops listening closes the connection to the provider at once."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import aclosing

import pytest

from machina.connectors.llm import OpenAICompatibleProvider
from tests.connectors.answers import ask, request
from tests.connectors.conftest import MakeProvider
from tests.provider_server import ProviderServer

ENDLESS = "n=100000,delay_ms=5"


@pytest.mark.parametrize("model", [ENDLESS, "stall"])
async def test_connection_is_closed_at_once_when_the_iterator_is(
    provider: OpenAICompatibleProvider, server: ProviderServer, model: str
) -> None:
    async with aclosing(provider.chat(request(model))) as deltas:
        await anext(deltas)
        assert server.open_connections == 1
    closed_at = time.time()
    await server.wait_closed_connections(1, within_seconds=1.0)
    (connection,) = server.connections
    assert connection.closed_at is not None
    assert connection.closed_at - closed_at < 1.0
    assert not server.requests[0].answered


@pytest.mark.parametrize("model", [ENDLESS, "stall", "slow-first", "slow-headers"])
async def test_connection_is_closed_at_once_when_the_task_is_cancelled(
    provider: OpenAICompatibleProvider, server: ProviderServer, model: str
) -> None:
    task = asyncio.create_task(ask(provider, model))
    await server.wait_requests(1)
    await asyncio.sleep(0.05)
    assert server.open_connections == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.wait_closed_connections(1, within_seconds=1.0)
    assert server.open_connections == 0


async def test_cancellation_goes_through_when_it_meets_a_limit_of_time(
    server: ProviderServer, make_provider: MakeProvider
) -> None:
    provider = make_provider(first_byte_seconds=0.05)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(ask(provider, "slow-first"))
    # Both ring in the same round of the loop, whichever comes first.
    loop.call_later(0.05, lambda: loop.call_soon(task.cancel))
    result = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result[0], asyncio.CancelledError) or task.result().limit == "first byte"
    await server.wait_closed_connections(1)


async def test_caller_can_go_on_when_a_limit_of_time_was_reached(
    make_provider: MakeProvider,
) -> None:
    provider = make_provider(first_byte_seconds=0.05)
    answer = await ask(provider, "slow-first")
    assert answer.limit == "first byte"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_no_further_try_is_made_when_cancelled_between_two_tries(
    server: ProviderServer,
) -> None:
    provider = OpenAICompatibleProvider(server.base_url, None, "ok", jitter=lambda: 1.0)
    task = asyncio.create_task(ask(provider, "status-500"))
    await server.wait_requests(1)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(server.requests) == 1
    await provider.aclose()


async def test_other_answers_go_on_when_one_is_closed(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    other = asyncio.create_task(ask(provider, "n=30,delay_ms=5"))
    async with aclosing(provider.chat(request(ENDLESS))) as deltas:
        await anext(deltas)
    answer = await other
    assert (answer.failure, len(answer.texts)) == (None, 30)


async def test_connection_is_closed_when_the_iterator_is_forgotten(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    async for _ in provider.chat(request(ENDLESS)):
        break
    gc.collect()
    await server.wait_closed_connections(1, within_seconds=1.0)


async def test_pooled_connections_are_closed_when_the_provider_is(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    await ask(provider)
    assert server.open_connections == 1
    await provider.aclose()
    await server.wait_closed_connections(1, within_seconds=1.0)

"""The provider server of the tests, asked the way other suites and real processes ask it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from machina.connectors.llm import OpenAICompatibleProvider
from tests.connectors.answers import ask
from tests.provider_server import ProviderServer, Scenario

SCRIPT = Path(__file__).parents[1] / "provider_server.py"


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a provider server in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


async def test_requests_and_connections_are_shown_when_it_runs_as_a_process(port: int) -> None:
    base_url = f"http://127.0.0.1:{port}/v1"
    provider = OpenAICompatibleProvider(base_url, "sk-test-1234", "n=3")
    assert (await ask(provider)).text == "tok-0 tok-1 tok-2"
    task = asyncio.create_task(ask(provider, "stall"))
    async with httpx.AsyncClient() as client:
        seen = await _seen(client, port, lambda seen: len(seen["requests"]) == 2)
        assert [request["scenario"] for request in seen["requests"]] == ["n=3", "stall"]
        assert [request["answered"] for request in seen["requests"]] == [True, False]
        assert seen["requests"][0]["body"]["messages"] == [{"role": "user", "content": "Hello"}]
        assert seen["requests"][0]["authorized"]
        assert "sk-test-1234" not in str(seen)
        assert seen["open_connections"] == 1
        task.cancel()
        cancelled_at = time.time()
        seen = await _seen(client, port, lambda seen: seen["open_connections"] == 0)
        assert seen["connections"][-1]["closed_at"] - cancelled_at < 1.0
    await provider.aclose()


async def _seen(client: httpx.AsyncClient, port: int, is_so: Any) -> Any:
    async with asyncio.timeout(2):
        while True:
            seen = (await client.get(f"http://127.0.0.1:{port}/_seen")).json()
            if is_so(seen):
                return seen
            await asyncio.sleep(0.01)


async def test_scenario_is_taken_from_message_then_header_then_model(
    server: ProviderServer,
) -> None:
    async def scenario(model: str, says: str, headers: dict[str, str]) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": says}]}
        await client.post(f"{server.base_url}/chat/completions", json=body, headers=headers)
        return server.requests[-1].scenario.strip()

    async with httpx.AsyncClient() as client:
        header = {"X-Scenario": "status-402"}
        assert await scenario("ok", "Hi [[provider: n=1]]", header) == "n=1"
        assert await scenario("ok", "Hi", header) == "status-402"
        assert await scenario("gpt-4o-mini", "Hi", {}) == "gpt-4o-mini"


async def test_other_paths_are_refused_when_asked_for(server: ProviderServer) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{server.base_url}/models")).status_code == 404
    assert (len(server.requests), server.open_connections) == (0, 0)


async def test_waiting_fails_when_the_connections_stay_open(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    await ask(provider)
    with pytest.raises(TimeoutError):
        await server.wait_closed_connections(1, within_seconds=0.02)
    with pytest.raises(TimeoutError):
        await server.wait_requests(2, within_seconds=0.02)


def test_scenario_is_read_when_parts_are_divided_by_comma_or_blank() -> None:
    assert Scenario.parse("cut after=3,pause_ms=1") == Scenario(
        "cut", {"after": "3", "pause_ms": "1"}
    )
    assert Scenario.parse("") == Scenario("ok", {})

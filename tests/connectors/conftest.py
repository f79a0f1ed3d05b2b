"""A real provider server per test, and providers that are closed afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from machina.connectors.llm import OpenAICompatibleProvider, ProviderLimits
from tests.provider_server import ProviderServer

MakeProvider = Callable[..., OpenAICompatibleProvider]


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer() as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    """How long the providers of `make_provider` would have slept between two tries."""
    return []


@pytest.fixture
async def make_provider(server: ProviderServer, pauses: list[float]) -> AsyncIterator[MakeProvider]:
    """Makes providers of the test's server; keyword arguments are those of `ProviderLimits`."""
    made: list[OpenAICompatibleProvider] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    def make(
        *, base_url: str | None = None, api_key: str | None = "sk-test-1234", **limits: Any
    ) -> OpenAICompatibleProvider:
        provider = OpenAICompatibleProvider(
            base_url or server.base_url,
            api_key,
            "ok",
            ProviderLimits(**limits),
            sleep=sleep,
            jitter=lambda: 1.0,
        )
        made.append(provider)
        return provider

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
def provider(make_provider: MakeProvider) -> OpenAICompatibleProvider:
    """A provider with the usual limits."""
    return make_provider()

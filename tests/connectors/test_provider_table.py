"""The table of providers."""

from __future__ import annotations

import pytest

from machina.connectors.llm import PROVIDERS, ProviderOptions
from machina.connectors.llm.local_embedding import embed_text
from tests.connectors.answers import ask
from tests.provider_server import ProviderServer


@pytest.mark.parametrize("name", sorted(PROVIDERS))
async def test_provider_answers_when_made_from_the_table(name: str, server: ProviderServer) -> None:
    options = ProviderOptions(
        default_model="n=2", base_url=server.base_url, api_key="sk-test-1234", pace_seconds=0
    )
    provider = PROVIDERS[name](options)
    answer = await ask(provider)
    assert provider.name == name
    assert (answer.failure, answer.finish_reason) == (None, "stop")
    await provider.aclose()


@pytest.mark.parametrize("name", sorted(PROVIDERS))
async def test_every_line_of_the_table_embeds_too(name: str, server: ProviderServer) -> None:
    vendor = PROVIDERS[name](ProviderOptions(base_url=server.base_url, pace_seconds=0))
    vectors = await vendor.embed(["a text", "another"])
    assert list(vectors) == [embed_text("a text"), embed_text("another")]
    assert vectors.usage.prompt_tokens == 3
    await vendor.aclose()


def test_key_is_hidden_when_options_are_shown() -> None:
    assert "sk-test-1234" not in repr(ProviderOptions(api_key="sk-test-1234"))

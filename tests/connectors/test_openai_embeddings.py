"""Embeddings of an OpenAI-compatible server."""

from __future__ import annotations

import pytest

from machina.connectors.llm import OpenAICompatibleProvider
from machina.connectors.llm.local_embedding import embed_text
from machina.connectors.llm.openai_embeddings import (
    BATCH_CHARS,
    BATCH_TEXTS,
    MAX_TEXT_CHARS,
    batches,
)
from machina.errors import ModelFailed
from tests.connectors.conftest import MakeProvider
from tests.provider_server import ProviderServer


async def test_vectors_come_in_the_order_of_the_texts_when_the_server_sends_them_reversed(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    answer = await provider.embed(["one", "two words", "three"], "some-model")
    assert list(answer) == [embed_text("one"), embed_text("two words"), embed_text("three")]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == (
        "some-model",
        4,
        4,
    )
    (seen,) = server.requests
    assert (seen.path, seen.bears("sk-test-1234")) == ("/v1/embeddings", True)
    assert seen.body == {
        "model": "some-model",
        "input": ["one", "two words", "three"],
        "encoding_format": "float",
    }


@pytest.mark.parametrize("model", ["vectors-unnumbered", "vectors-misnumbered"])
async def test_order_is_the_servers_when_it_numbers_nothing(
    provider: OpenAICompatibleProvider, model: str
) -> None:
    assert list(await provider.embed(["a", "b"], model)) == [
        embed_text("a"),
        embed_text("b"),
    ]


async def test_many_texts_go_in_batches_and_their_cost_is_added(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    texts = [f"text {number}" for number in range(BATCH_TEXTS * 2 + 1)]
    answer = await provider.embed(texts)
    assert [len(request.body["input"]) for request in server.requests] == [64, 64, 1]
    assert server.requests[0].body["model"] == "text-embedding-3-small"
    assert list(answer) == [embed_text(text) for text in texts]
    assert answer.usage.prompt_tokens == 2 * len(texts)


async def test_nothing_is_asked_when_there_are_no_texts(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    assert await provider.embed([]) == []
    assert not server.requests


def test_batches_are_bounded_and_hold_no_empty_text() -> None:
    assert list(batches(["", " \n", "a"])) == [[" ", " ", "a"]]
    assert list(batches(["x" * (MAX_TEXT_CHARS + 5)])) == [["x" * MAX_TEXT_CHARS]]
    sizes = [sum(map(len, batch)) for batch in batches(["x" * MAX_TEXT_CHARS] * 20)]
    assert sum(sizes) == MAX_TEXT_CHARS * 20
    assert max(sizes) <= BATCH_CHARS


async def test_an_empty_text_gets_a_vector_although_servers_refuse_one(
    provider: OpenAICompatibleProvider,
) -> None:
    assert len(await provider.embed(["", "a"])) == 2


@pytest.mark.parametrize(
    ("model", "code", "retryable", "told"),
    [
        ("vectors-too-few", "provider_invalid", False, "asked for 2 vectors"),
        ("vectors-of-words", "provider_invalid", False, "values are no numbers"),
        ("vectors-none", "provider_invalid", False, "is no vector"),
        ("vectors-uneven", "provider_invalid", False, "different lengths"),
        ("vectors-error", "provider_not_found", False, "no such model"),
        ("vectors-huge", "provider_invalid", False, "longer than"),
        ("html", "provider_invalid", False, "no JSON"),
        ("no-http", "provider_invalid", False, "not HTTP"),
        ("status-401", "provider_unauthorized", False, "check OPENAI_API_KEY"),
        ("status-404", "provider_not_found", False, "does not know the model"),
        ("status-400", "provider_rejected", False, "rejected the request"),
        ("status-429", "provider_rate_limited", True, "limits our rate"),
        ("status-500", "provider_unavailable", True, "out of order"),
        ("reset", "provider_cut", True, "cut the connection"),
        ("plain-json-cut", "provider_cut", True, "cut the connection"),
    ],
)
async def test_failure_has_the_code_of_a_chat_when_the_server_fails(
    provider: OpenAICompatibleProvider, model: str, code: str, retryable: bool, told: str
) -> None:
    with pytest.raises(ModelFailed, match=told) as failed:
        await provider.embed(["a", "b"], model)
    assert (failed.value.code, failed.value.retryable) == (code, retryable)


@pytest.mark.parametrize("model", ["status-500-2", "status-429-3", "reset-1"])
async def test_a_call_is_tried_again_when_the_failure_may_pass(
    provider: OpenAICompatibleProvider, pauses: list[float], model: str
) -> None:
    assert list(await provider.embed(["a"], model)) == [embed_text("a")]
    assert pauses


@pytest.mark.parametrize(
    ("limits", "model", "limit"),
    [
        ({"first_byte_seconds": 0.05}, "slow-headers", "first byte"),
        ({"between_tokens_seconds": 0.05}, "stall", "between tokens"),
        ({"total_seconds": 0.05}, "slow-headers", "total"),
    ],
)
async def test_a_wait_ends_when_its_limit_is_reached(
    make_provider: MakeProvider, limits: dict[str, float], model: str, limit: str
) -> None:
    with pytest.raises(ModelFailed) as failed:
        await make_provider(**limits).embed(["a"], model)
    assert (failed.value.code, failed.value.details["limit"]) == ("provider_timeout", limit)


async def test_the_callers_time_counts_when_it_is_shorter(
    provider: OpenAICompatibleProvider,
) -> None:
    with pytest.raises(ModelFailed) as failed:
        await provider.embed(["a"], "slow-headers", timeout_seconds=0.05)
    assert failed.value.details["limit"] == "total"

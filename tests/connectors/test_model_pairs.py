"""What a connector task gets from a model's connector."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from machina.connectors.base import ConnectorCall
from machina.connectors.llm.local_embedding import embed_text
from machina.connectors.llm.pairs import MAX_TEXTS, call_model
from machina.errors import ConnectorFailed, ModelFailed
from machina.settings import Settings
from machina.worker.providers import Providers
from tests.provider_server import ProviderServer


@pytest.fixture
async def models(server: ProviderServer) -> AsyncIterator[Providers]:
    settings = Settings(
        _env_file=None, OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk", MACHINA_MODEL="echo"
    )
    providers = Providers(settings)
    yield providers
    await providers.aclose()


def call(command: str = "invoke_prompt", name: str = "groq", **inputs: Any) -> ConnectorCall:
    block = {"name": name, "command": command}
    return ConnectorCall("run", name, command, None, inputs=inputs, block=block)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"messages": [{"role": "user", "content": "Hi there"}]}, "Hi there"),
        ({"messages": "Hi"}, "Hi"),
        ({"prompt": "Hi"}, "Hi"),
        ({"text": "Hi", "temperature": 0.5, "max_tokens": 9}, "Hi"),
        ({"text": "Hi", "temperature": "0.5", "max_tokens": "9"}, "Hi"),
        ({"messages": [], "query": "Hi", "system": "Be brief."}, "Hi"),
    ],
)
async def test_the_model_answers_when_there_is_something_to_say(
    models: Providers, server: ProviderServer, inputs: dict[str, Any], said: str
) -> None:
    reply = await call_model(models, call(**inputs))
    assert reply.data == said
    assert reply.envelope["status"] is True
    assert reply.envelope["usage"]["total_tokens"] > 0
    (seen,) = server.requests
    assert seen.body["model"] == "echo"
    assert seen.body.get("temperature") == (0.5 if "temperature" in inputs else None)
    assert seen.body.get("max_tokens") == (9 if "max_tokens" in inputs else None)
    assert (seen.body["messages"][0]["role"] == "system") is ("system" in inputs)


async def test_the_authors_model_is_used_when_the_connector_is_openai(
    models: Providers, server: ProviderServer
) -> None:
    await call_model(models, call(name="openai", model="n=1", prompt="Hi"))
    assert server.requests[0].body["model"] == "n=1"


@pytest.mark.parametrize("command", ["invoke_prompt", "invoke_embedding"])
@pytest.mark.parametrize("inputs", [{}, {"messages": []}, {"text": ""}, {"prompt": 7}])
async def test_the_model_is_described_when_there_is_nothing_to_say(
    models: Providers, server: ProviderServer, command: str, inputs: dict[str, Any]
) -> None:
    reply = await call_model(models, call(command, **inputs))
    assert reply.data == {
        "connector": "groq",
        "command": command,
        "provider": "openai-compatible",
        "model": "echo" if command == "invoke_prompt" else "text-embedding-3-small",
    }
    assert not server.requests


async def test_a_text_gives_a_vector_and_a_list_gives_vectors(models: Providers) -> None:
    one = await call_model(models, call("invoke_embedding", text="one two"))
    many = await call_model(models, call("invoke_embedding", documents=["a", "b"], text="c"))
    assert one.data == embed_text("one two")
    assert many.data == [embed_text("a"), embed_text("b")]
    assert one.envelope["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("texts", [[7], ["a"] * (MAX_TEXTS + 1)])
async def test_embedding_fails_clearly_when_the_input_is_no_text(
    models: Providers, texts: list[Any]
) -> None:
    with pytest.raises(ConnectorFailed, match="asks for embeddings of something else"):
        await call_model(models, call("invoke_embedding", texts=texts))


async def test_a_failure_is_the_providers_when_it_fails(models: Providers) -> None:
    with pytest.raises(ModelFailed):
        await call_model(models, call(name="openai", model="status-401", prompt="Hi"))

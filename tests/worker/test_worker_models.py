"""The providers of a worker: from settings and the operator's file to servers and models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from machina.connectors.llm.base import ChatRequest
from machina.connectors.llm.local_embedding import embed_text
from machina.errors import ModelFailed, SettingsInvalid
from machina.settings import Settings
from machina.worker.providers import Providers
from tests.provider_server import ProviderServer

Make = Callable[..., Awaitable[Providers]]
GEMINI = {"name": "google-genai", "provider": "vertex_ai", "model": "gemini-2.5-flash"}


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer() as server:
        yield server


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Providers] = []

    async def make(
        routes: str | None = None, environ: dict[str, str] | None = None, **settings: Any
    ) -> Providers:
        if routes is not None:
            settings["MACHINA_MODEL_ROUTES"] = tmp_path / "models.yml"
            await asyncio.to_thread(settings["MACHINA_MODEL_ROUTES"].write_text, routes)
        made_of = Settings(_env_file=None, **settings), environ
        providers = await asyncio.to_thread(Providers, *made_of)
        made.append(providers)
        return providers

    yield make
    for providers in made:
        await providers.aclose()


async def say(providers: Providers, block: dict[str, Any]) -> str:
    request = ChatRequest([{"role": "user", "content": "Hello"}], model=block.get("model"))
    return "".join([delta.text async for delta in providers.provider_for(block).chat(request)])


async def test_the_scripted_model_answers_when_nothing_is_configured(make: Make) -> None:
    providers = await make()
    assert providers.provider_for(GEMINI).name == "scripted"
    assert providers.chat_route(GEMINI).model == "scripted"
    embedder = providers.embedder_for({"name": "google-genai", "model": "text-embedding-004"})
    assert embedder.space == "scripted"
    assert list(await embedder.embed(["a b"])) == [embed_text("a b")]
    assert providers.serves("google-genai")
    assert not providers.serves("machina-gcp-ai")


@pytest.mark.parametrize(
    ("block", "model"),
    [
        (GEMINI, "n=2"),
        ({}, "n=2"),
        ({"name": "openai", "model": "n=3"}, "n=3"),
        ({"name": "openai"}, "n=2"),
    ],
)
async def test_the_endpoint_answers_when_one_is_configured(
    make: Make, server: ProviderServer, block: dict[str, Any], model: str
) -> None:
    providers = await make(
        OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-main", MACHINA_MODEL="n=2"
    )
    assert await say(providers, block)
    (seen,) = server.requests
    assert (seen.body["model"], seen.bears("sk-main")) == (model, True)


@pytest.mark.parametrize("name", ["openai", "google-genai", "my-own-llm", None])
@pytest.mark.parametrize("provider", ["openai-compatible", "elsewhere", None])
async def test_no_template_can_send_the_operators_key_elsewhere(
    make: Make, server: ProviderServer, name: str | None, provider: str | None
) -> None:
    async with ProviderServer() as elsewhere:
        hostile = {
            "name": name,
            "provider": provider,
            "base_url": elsewhere.base_url,
            "api_base": elsewhere.base_url,
            "url": elsewhere.base_url,
            "endpoint": elsewhere.base_url,
            "api_key": "sk-of-the-author",
            "api_key_variable": "OPERATORS_OTHER_KEY",
            "headers": {"Host": "elsewhere.test"},
            "model": "n=1",
        }
        providers = await make(
            environ={"OPERATORS_OTHER_KEY": "sk-other"},
            OPENAI_BASE_URL=server.base_url,
            OPENAI_API_KEY="sk-main",
            MACHINA_MODEL="n=1",
        )
        await say(providers, hostile)
        await providers.embedder_for(hostile).embed(["a"])
        assert not elsewhere.requests
        assert [seen.bears("sk-main") for seen in server.requests] == [True, True]
        assert "sk-o" not in str(server.requests)


async def test_vectors_of_the_endpoint_have_a_space_of_their_own(
    make: Make, server: ProviderServer
) -> None:
    providers = await make(OPENAI_BASE_URL=server.base_url, MACHINA_EMBEDDING_MODEL="mine")
    embedder = providers.embedder_for({"name": "google-genai", "model": "text-embedding-004"})
    assert (await embedder.embed(["a"])).model == "mine"
    assert embedder.space == f"openai-compatible {server.base_url} mine"
    assert server.requests[0].body["model"] == "mine"


async def test_the_operators_rules_come_first(make: Make, server: ProviderServer) -> None:
    routes = f"""
        chat:
          - {{connector: google-genai, to: {{provider: openai-compatible, model: n=4}}}}
          - connector: groq
            to:
              provider: openai-compatible
              model: "*"
              base_url: {server.base_url}/groq
              api_key_variable: GROQ_KEY
          - connector: machina-gcp-ai
            to: {{provider: openai-compatible, base_url: "{server.base_url}/free"}}
        embeddings:
          - to: {{provider: scripted}}
    """
    providers = await make(
        routes,
        {"GROQ_KEY": "sk-groq"},
        OPENAI_BASE_URL=server.base_url,
        OPENAI_API_KEY="sk-main",
        MACHINA_MODEL="n=2",
    )
    for block in (GEMINI, {"name": "groq", "model": "n=5"}, {"name": "machina-gcp-ai"}, {}):
        await say(providers, block)
    seen = list(server.requests)
    assert [(r.path.removesuffix("/chat/completions"), r.body["model"]) for r in seen] == [
        ("/v1", "n=4"),
        ("/v1/groq", "n=5"),
        ("/v1/free", "n=2"),
        ("/v1", "n=2"),
    ]
    assert seen[1].bears("sk-groq")
    assert seen[2].key_digest is None  # the configured key is not for other hosts
    assert seen[3].bears("sk-main")
    assert providers.serves("machina-gcp-ai")
    assert providers.embedder_for(GEMINI).space == "scripted"


async def test_a_refused_key_is_named_by_its_own_variable(
    make: Make, server: ProviderServer
) -> None:
    routes = f"""
        chat: [{{to: {{provider: openai-compatible, model: status-401,
                 base_url: "{server.base_url}", api_key_variable: MY_KEY}}}}]
    """
    with pytest.raises(ModelFailed, match="check MY_KEY"):
        await say(await make(routes, {"MY_KEY": "sk-mine"}), {})


async def test_keys_come_from_the_environment_and_the_env_file(
    make: Make, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await asyncio.to_thread((tmp_path / "env").write_text, "FILE_KEY=sk-file\n")
    monkeypatch.setenv("MACHINA_ENV_FILE", str(tmp_path / "env"))
    monkeypatch.setenv("SHELL_KEY", "sk-shell")
    to = f"{{provider: openai-compatible, base_url: '{server.base_url}', api_key_variable: "
    routes = f"""
        chat: [{{connector: a, to: {to} FILE_KEY}}}}, {{connector: b, to: {to} SHELL_KEY}}}}]
    """
    providers = await make(routes)
    await say(providers, {"name": "a"})
    await say(providers, {"name": "b"})
    assert [r.bears(k) for r, k in zip(server.requests, ("sk-file", "sk-shell"), strict=True)] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("{provider: openai-compatible, api_key_variable: NO_KEY}", "NO_KEY, which is not set"),
        (
            "{provider: openai-compatible, base_url: 'https://'}",
            "chat, rule 1, 'to': 'base_url' is not the URL of a server: it must look like https://",
        ),
        (
            "{provider: openai-compatible, base_url: 'https://a:1234@c/v1'}",
            "chat, rule 1, 'to': 'base_url' holds credentials: put the key into the variable that "
            "'api_key_variable' names",
        ),
        ("{provider: openai-compatible, api_key_variable: BAD_KEY}", "BAD_KEY holds characters"),
    ],
)
async def test_the_worker_does_not_start_when_a_route_leads_nowhere(
    make: Make, to: str, told: str
) -> None:
    with pytest.raises(SettingsInvalid, match=r"MACHINA_MODEL_ROUTES=.*models\.yml: ") as refused:
        await make(f"chat: [{{to: {to}}}]", {"BAD_KEY": "sk\n1234"})
    assert told in refused.value.message
    assert "1234" not in refused.value.message


async def test_the_file_is_not_blamed_for_the_base_url_of_the_settings(make: Make) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        await make(
            "chat: [{to: {provider: openai-compatible}}]", OPENAI_BASE_URL="https://a:1234@c/v1"
        )
    assert "OPENAI_BASE_URL holds credentials" in refused.value.message
    assert "base_url" not in refused.value.message
    assert "1234" not in refused.value.message


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("status-401", "set 'api_key_variable' in MACHINA_MODEL_ROUTES"),
        ("status-404", "'base_url' in MACHINA_MODEL_ROUTES lacks its path"),
        ("html", "check 'base_url' in MACHINA_MODEL_ROUTES"),
    ],
)
async def test_what_a_routed_provider_refuses_is_mended_in_the_table(
    make: Make, server: ProviderServer, model: str, told: str
) -> None:
    to = f"{{provider: openai-compatible, model: {model}, base_url: '{server.base_url}'}}"
    providers = await make(f"chat: [{{to: {to}}}]", OPENAI_API_KEY="sk-main")
    with pytest.raises(ModelFailed) as failed:
        await say(providers, {"name": "google-genai"})
    assert told in failed.value.message
    assert "OPENAI_" not in failed.value.message


def test_the_worker_does_not_start_when_the_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yml").write_bytes(b"chat: [\xff]")
    (tmp_path / "huge.yml").write_bytes(b"#" * 300_000)
    for name in ("missing.yml", ".", "latin.yml", "huge.yml"):
        settings = Settings(_env_file=None, MACHINA_MODEL_ROUTES=tmp_path / name)
        with pytest.raises(SettingsInvalid, match="cannot be read"):
            Providers(settings)

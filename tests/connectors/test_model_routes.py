"""The routing table: which rule a connector block takes, and how the operator's file is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machina.connectors.llm import PROVIDERS
from machina.connectors.llm.route_file import MAX_PATTERN, MAX_RULES, read_routes
from machina.connectors.llm.routes import (
    LLM_CONNECTORS,
    Route,
    RouteTable,
    Rule,
    default_table,
    matches,
)
from machina.errors import SettingsInvalid

ENDPOINT = default_table(has_endpoint=True)
NO_ENDPOINT = default_table(has_endpoint=False)


def read(text: str) -> RouteTable:
    return read_routes(text, "models.yml", PROVIDERS)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("*", "", True),
        ("*", "anything", True),
        ("gemini-*", "gemini-2.5-flash", True),
        ("gemini-*", "gpt-4o", False),
        ("*-flash", "gemini-2.5-flash", True),
        ("g*-*flash", "gemini-2.5-flash", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "acb", False),
        ("openai", "openai", True),
        ("openai", "openai2", False),
        ("**", "x", True),
    ],
)
def test_pattern_matches_when_stars_stand_for_anything(
    pattern: str, text: str, expected: bool
) -> None:
    assert matches(pattern, text) is expected


def test_matching_is_quick_when_pattern_and_text_are_hostile() -> None:
    assert not matches("*a" * 100 + "b", "a" * 100_000)


@pytest.mark.parametrize("name", sorted(LLM_CONNECTORS))
def test_every_model_connector_is_scripted_when_nothing_is_configured(name: str) -> None:
    block = {"name": name, "provider": "vertex_ai", "model": "gemini-2.5-flash"}
    assert NO_ENDPOINT.chat_route(block) == Route("scripted")
    assert NO_ENDPOINT.embedding_route(block) == Route("scripted")
    assert NO_ENDPOINT.serves(name)


@pytest.mark.parametrize("name", sorted(LLM_CONNECTORS - {"openai"}))
def test_every_model_connector_gets_the_operators_model_when_there_is_an_endpoint(
    name: str,
) -> None:
    block = {"name": name, "provider": "vertex_ai", "model": "gemini-2.5-flash"}
    assert ENDPOINT.chat_route(block) == Route("openai-compatible")
    assert ENDPOINT.embedding_route(block) == Route("openai-compatible")


@pytest.mark.parametrize(
    ("block", "model"),
    [
        ({"name": "openai", "model": "gpt-4o"}, "gpt-4o"),
        ({"name": "OpenAI", "model_name": " gpt-4o "}, "gpt-4o"),
        ({"name": "openai"}, None),
        ({"name": "openai", "model": 7}, None),
        ({"name": "machina-ai", "provider": "openai", "model": "gpt-4o"}, "gpt-4o"),
        ({"name": "x", "provider": "openai-compatible", "model": "mine"}, "mine"),
        ({"name": "groq", "model": "llama"}, None),
        ({}, None),
    ],
)
def test_the_authors_model_is_kept_when_it_is_one_of_the_endpoints_own(
    block: dict[str, Any], model: str | None
) -> None:
    assert ENDPOINT.chat_route(block) == Route("openai-compatible", model)


@pytest.mark.parametrize(
    ("block", "model"),
    [
        ({"name": "openai", "model": "text-embedding-3-large"}, "text-embedding-3-large"),
        ({"name": "openai", "model": "text-embedding-ada-002"}, "text-embedding-ada-002"),
        ({"name": "openai", "model": "text-embedding-004"}, None),
        ({"name": "google-genai", "model": "text-embedding-3-small"}, None),
        ({}, None),
    ],
)
def test_embeddings_share_one_model_unless_the_author_asked_openai_for_one_of_its_own(
    block: dict[str, Any], model: str | None
) -> None:
    assert ENDPOINT.embedding_route(block) == Route("openai-compatible", model)


@pytest.mark.parametrize("table", [ENDPOINT, NO_ENDPOINT])
def test_a_template_can_ask_for_the_scripted_model(table: RouteTable) -> None:
    assert table.chat_route({"name": "openai", "provider": "scripted"}).provider == "scripted"
    assert table.embedding_route({"provider": "scripted"}).provider == "scripted"


def test_a_connector_is_no_model_when_nobody_says_so() -> None:
    assert not ENDPOINT.serves("machina-gcp-ai")
    assert not ENDPOINT.serves("xAI Grok")


def test_a_connector_is_a_model_when_a_rule_names_it() -> None:
    rule = Rule(Route("scripted"), {"connector": "machina-gcp-*"})
    table = RouteTable(chat=[rule], embeddings=[Rule(Route("scripted"), {"connector": "*"})])
    assert table.serves("machina-gcp-ai")
    assert table.serves("Machina-GCP-AI")
    assert not table.serves("other")


# the file

FILE = """
chat:
  - connector: Google-GenAI
    model: "gemini-*-flash*"
    to: {provider: openai-compatible, model: small}
  - connector: google-genai
    to:
      provider: openai-compatible
      model: large
      base_url: https://llm.example.test/v1
      api_key_variable: LARGE_KEY
  - profile: fast
    to: {provider: scripted}
embeddings:
  - model: text-embedding-004
    to: {provider: scripted}
"""


@pytest.mark.parametrize("text", [FILE, "\ufeff" + FILE])
def test_the_first_rule_that_matches_decides(text: str) -> None:
    table = read(text)
    flash = {"name": "google-genai", "model": "Gemini-2.5-Flash-Lite"}
    assert table.chat_route(flash) == Route("openai-compatible", "small")
    assert table.chat_route({"name": "google-genai"}) == Route(
        "openai-compatible", "large", "https://llm.example.test/v1", "LARGE_KEY"
    )
    assert table.chat_route({"name": "groq", "profile": "fast"}) == Route("scripted")
    assert table.embedding_route({"model": "text-embedding-004"}) == Route("scripted")


def test_the_file_may_be_json_with_tabs() -> None:
    rules = {"chat": [{"connector": "a", "to": {"provider": "scripted"}}]}
    assert read(json.dumps(rules, indent="\t")).chat[0] == Rule(
        Route("scripted"), {"connector": "a"}
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "chat:\n", "{}"])
def test_the_file_may_be_empty(text: str) -> None:
    table = read(text)
    assert [*table.chat, *table.embeddings] == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "under 'chat' and 'embeddings'"),
        ("chats: []", "'chats' is unknown; use chat, embeddings"),
        ("chat: {}", "'chat' must be a list of rules"),
        ("chat: [7]", "chat, rule 1 must be a dictionary with 'to'"),
        ("chat: [{}]", "chat, rule 1 needs 'to'"),
        ("chat: [{to: scripted}]", "chat, rule 1 needs 'to'"),
        ("chat: [{conector: a, to: {}}]", "'conector' is unknown; use connector, provider"),
        ("chat: [{to: {provider: gpt}}]", "one of openai-compatible, scripted, not 'gpt'"),
        ("chat: [{to: {}}]", "'provider' must be one of"),
        ("chat: [{to: {provider: scripted, key: x}}]", "'key' is unknown; use provider, model"),
        ("chat: [{connector: 7, to: {provider: scripted}}]", "'connector' must be a text of 1"),
        ("chat: [{model: '', to: {provider: scripted}}]", "'model' must be a text of 1"),
        (f"chat: [{{model: {'x' * (MAX_PATTERN + 1)}, to: {{}}}}]", "'model' must be a text of 1"),
        (
            "embeddings: [{to: {provider: scripted, base_url: 'http://x'}}]",
            "goes with the provider",
        ),
        (
            "chat: [{to: {provider: openai-compatible, base_url: 'ftp://x'}}]",
            "'base_url' is not the URL of a server: it must look like https://host/v1",
        ),
        (
            "chat: [{to: {provider: openai-compatible, api_key_variable: sk-1234}}]",
            "put the key itself into that variable",
        ),
        ("chat: [{to: {provider: scripted}, to: {provider: scripted}}]", "'to' is given twice"),
        ('{"chat": [], "chat": []}', "'chat' is given twice"),
        ("chat: [", "neither YAML nor JSON"),
        ('{"chat": ', "neither YAML nor JSON"),
        ("chat: !!python/object/apply:os.system [ls]", "neither YAML nor JSON"),
        ("[" * 5_000, "neither YAML nor JSON"),
        (f"chat: [{'{to: {provider: scripted}},' * (MAX_RULES + 1)}]", "more than 500 rules"),
    ],
)
def test_reading_the_file_says_where_it_is_wrong_and_what_to_do(text: str, told: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        read(text)
    assert refused.value.message.startswith("MACHINA_MODEL_ROUTES=models.yml: ")
    assert told in refused.value.message
    assert "sk-1234" not in refused.value.message

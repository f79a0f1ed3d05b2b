"""The examples of docs/models.md are routing tables that a worker takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from machina.connectors.llm import PROVIDERS
from machina.connectors.llm.route_file import read_routes
from machina.connectors.llm.routes import LLM_CONNECTORS, Route

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_is_read(example: str) -> None:
    table = read_routes(example, "docs/models.md", PROVIDERS)
    assert table.chat


def test_the_first_example_does_what_its_comments_say() -> None:
    table = read_routes(EXAMPLES[0], "docs/models.md", PROVIDERS)
    flash = {"name": "google-genai", "provider": "vertex_ai", "model": "gemini-2.5-flash"}
    assert table.chat_route(flash).model == "gpt-4o-mini"
    groq = table.chat_route({"name": "groq", "model": "llama-3.3-70b"})
    assert groq == Route(
        "openai-compatible", "llama-3.3-70b", "https://api.groq.com/openai/v1", "GROQ_API_KEY"
    )
    assert table.chat_route({**flash, "model": "gemini-2.5-pro"}).model == "llama3.2"
    assert table.embedding_route({"model": "text-embedding-004"}).model == "nomic-embed-text"


def test_the_page_names_the_models_connectors() -> None:
    section = PAGE.partition("## Which connectors are models")[2]
    named = re.findall(r"`([a-z-]+)`", section.partition(" are models whether")[0])
    assert set(named) == LLM_CONNECTORS

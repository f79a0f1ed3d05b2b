"""The demo template on an OpenAI-compatible server: structured outputs, vectors, streamed text."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.templates import Templates
from machina.worker.crew import WorkerCrew
from tests.fleet import PROJECT, ask, assert_sound, get_run, make_settings, types_of, watch
from tests.provider_server import ProviderServer, token_texts
from tests.services import RedisServer

TEMPLATE = Path(__file__).parents[2] / "templates" / "demo-chat"
QUESTION = "How does a client resume a stream?"


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, redis_server: RedisServer, server: ProviderServer) -> Settings:
    return make_settings(
        tmp_path,
        redis_server.url,
        openai_base_url=server.base_url,
        openai_api_key="sk-demo",
        model="n=30",
        embedding_model="words",
    )


async def run(api: Resources, worker: WorkerCrew, target: str, inputs: dict[str, Any]) -> Run:
    request = ask("", target_name=target, inputs=inputs, stream_workflows=True)
    submitted, _ = await api.runs.submit(request)
    await worker.execute(submitted.id)
    return await get_run(api, submitted)


async def test_it_runs_on_an_openai_compatible_server_with_structured_outputs(
    api: Resources, worker: WorkerCrew, server: ProviderServer
) -> None:
    [report] = await Templates(api.store, api.settings).install_folder(PROJECT, TEMPLATE)
    assert report.is_complete
    assert (await run(api, worker, "demo-chat-setup", {})).status == "executed"

    question = {"role": "user", "content": QUESTION}
    ended = await run(api, worker, "demo-chat", {"messages": [question]})

    assert ended.status == "executed"
    events = await watch(api, ended)
    assert_sound(events)
    assert types_of(events)[-2:] == ["content", "done"]
    pieces = [event["content"] for event in events if event["metadata"].get("partial")]
    assert "".join(pieces) == "".join(token_texts(30)) == events[-1]["metadata"]["content"]
    assert events[-1]["metadata"]["objects"][0]["title"] == "Streams"

    embedded, *rest = server.requests
    assert embedded.path.endswith("/embeddings")
    assert len(embedded.body["input"]) == 10
    decision, query, answer = rest
    asked = decision.body["response_format"]["json_schema"]["schema"]
    assert decision.body["response_format"]["type"] == "json_schema"
    assert asked["required"] == ["needs_documents", "search_query", "follow_ups"]
    assert query.body["input"] == [f"{QUESTION} search_query"]
    assert "response_format" not in answer.body
    assert answer.body["messages"][0]["role"] == "system"
    assert "resumes" in answer.body["messages"][1]["content"]
    assert answer.body["messages"][-1] == question
    assert all(request.bears("sk-demo") for request in server.requests)
    assert "sk-demo" not in json.dumps(events)

"""What an OpenAI-compatible provider is asked, and what is made of its answers, over real HTTP."""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import pytest

from machina.connectors.llm import ChatRequest, Message, OpenAICompatibleProvider, Usage
from machina.errors import SettingsInvalid
from tests.connectors.answers import ask, gather
from tests.connectors.conftest import MakeProvider
from tests.provider_server import ProviderServer


async def test_answer_is_streamed_token_by_token_when_all_is_well(
    provider: OpenAICompatibleProvider,
) -> None:
    answer = await ask(provider, "n=50")
    assert answer.texts == ["tok-0", *(f" tok-{i}" for i in range(1, 50))]
    assert [delta.finish_reason for delta in answer.deltas[:-1]] == [None] * 50
    assert (answer.finish_reason, answer.usage) == ("stop", Usage(1, 50))


async def test_request_says_only_what_was_given_when_little_was(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    messages: list[Message] = [
        {"content": "Sei höflich \u2028", "role": "system", "odd": {"z": 1, "a": [None]}},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "user", "content": ""},
    ]
    await gather(provider.chat(ChatRequest(messages=messages)))
    (seen,) = server.requests
    assert seen.body == {
        "model": "ok",
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert [list(message) for message in seen.body["messages"]] == [list(m) for m in messages]
    assert seen.path == "/v1/chat/completions"
    assert seen.bears("sk-test-1234")
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("machina-server/")


async def test_request_says_all_that_was_given_when_much_was(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    schema = {"title": "An Answer!", "type": "object", "properties": {"a": {"type": "integer"}}}
    answer = await ask(
        provider,
        "other",
        temperature=0.0,
        max_tokens=7,
        schema=schema,
        extra={"seed": 1, "top_p": 0.5, "location": "global"},
    )
    assert json.loads(answer.text) == {"a": 0}
    body = server.requests[0].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("other", 0.0, 7)
    assert (body["seed"], body["top_p"], "location" in body) == (1, 0.5, False)
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["name"] == "An_Answer"


@pytest.mark.parametrize(
    "content",
    ["lone \ud800", datetime.date(2024, 1, 1), 2**70, {"n": float("nan")}],
    ids=["surrogate", "date", "big", "nan"],
)
async def test_request_is_valid_json_when_a_message_holds_odd_values(
    provider: OpenAICompatibleProvider, server: ProviderServer, content: Any
) -> None:
    messages = [{"role": "user", "content": content}]
    answer = await gather(provider.chat(ChatRequest(messages=messages)))
    assert answer.failure is None
    assert server.requests[0].body["messages"][0]["role"] == "user"


async def test_no_key_is_sent_when_there_is_none(
    make_provider: MakeProvider, server: ProviderServer
) -> None:
    answer = await ask(make_provider(api_key=None))
    assert answer.failure is None
    assert server.requests[0].key_digest is None


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/x?version=1", "/v1/x/chat/completions?version=1"),
    ],
)
async def test_path_is_appended_when_the_base_url_ends_in_any_way(
    make_provider: MakeProvider, server: ProviderServer, suffix: str, path: str
) -> None:
    answer = await ask(make_provider(base_url=server.base_url + suffix))
    assert answer.failure is None
    assert server.requests[0].path == path


async def test_connection_is_used_again_when_the_answer_was_read_to_its_end(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    for _ in range(3):
        await ask(provider)
    assert [connection.requests for connection in server.connections] == [3]


async def test_no_cookie_is_kept_when_the_provider_sets_one(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    await ask(provider, "odd-lines")
    await ask(provider)
    assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    ("model", "text", "finish_reason", "usage"),
    [
        ("odd-lines", "tok-0 tok-1 tok-2", "stop", None),
        ("odd-deltas", "tok-0 tok-1", "stop", Usage(0, 0)),
        ("split-utf8", "Zürich → 東京 🏟️", "stop", Usage(1, 3)),
        (
            "odd-characters",
            "a\ufffd\ufffdzb\ufffdc\ufffdd\ufffde😀f\ufffd\ufffd",
            "stop",
            Usage(1, 8),
        ),
        ("no-done", "tok-0 tok-1 tok-2", "length", None),
        ("no-finish", "tok-0 tok-1 tok-2", "stop", None),
        ("plain-json,n=3", "tok-0 tok-1 tok-2", "stop", Usage(1, 3)),
        ("gzip,n=3", "tok-0 tok-1 tok-2", "stop", Usage(1, 3)),
        ("n=0", "", "stop", Usage(1, 0)),
    ],
)
async def test_answer_is_understood_when_the_server_is_odd(
    provider: OpenAICompatibleProvider,
    model: str,
    text: str,
    finish_reason: str,
    usage: Usage | None,
) -> None:
    answer = await ask(provider, model)
    assert answer.failure is None
    assert (answer.text, answer.finish_reason, answer.usage) == (text, finish_reason, usage)


@pytest.mark.parametrize("model", ["finish-stall", "done-stall"])
async def test_answer_ends_soon_when_the_server_leaves_the_connection_open(
    make_provider: MakeProvider, server: ProviderServer, model: str
) -> None:
    answer = await ask(make_provider(after_finish_seconds=0.05), model)
    assert answer.failure is None
    assert (answer.text, answer.finish_reason) == ("tok-0 tok-1 tok-2", "stop")
    await server.wait_closed_connections(1)


async def test_answers_do_not_mix_when_many_come_at_once(
    provider: OpenAICompatibleProvider,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        answers = [
            tasks.create_task(ask(provider, "echo", says=f"this is answer {i} of many"))
            for i in range(150)
        ]
    assert [task.result().text for task in answers] == [
        f"this is answer {i} of many" for i in range(150)
    ]


@pytest.mark.parametrize(
    ("base_url", "complaint"),
    [
        ("ftp://host/v1", "must look like https://host/v1"),
        ("model.example/v1", "must look like https://host/v1"),
        ("https://", "must look like https://host/v1"),
        ("https://host:port/v1", "must look like https://host/v1"),
        ("https://user:secret@host/v1", "holds credentials"),
    ],
)
def test_provider_is_refused_when_its_base_url_cannot_be_used(
    base_url: str, complaint: str
) -> None:
    with pytest.raises(SettingsInvalid, match=complaint) as caught:
        OpenAICompatibleProvider(base_url, None, "m")
    assert caught.value.field == "OPENAI_BASE_URL"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("key", ["sk-1\nsk-2", "sk-ключ"])
def test_provider_is_refused_when_its_key_cannot_be_sent(key: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        OpenAICompatibleProvider("http://host/v1", key, "m")
    assert caught.value.field == "OPENAI_API_KEY"
    assert "sk-" not in caught.value.message

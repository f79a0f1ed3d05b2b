"""The scripted model: deterministic, paced, and bad on request."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from machina.connectors.llm import ChatRequest, Message, ProviderLimits, ScriptedProvider, Usage
from tests.connectors.answers import ask, gather, request


def quick(**limits: float) -> ScriptedProvider:
    return ScriptedProvider(pace_seconds=0, limits=ProviderLimits(**limits))  # type: ignore[arg-type]  # no test sets the integers


async def test_greeting_quotes_the_user_when_no_directive_is_given() -> None:
    answer = await ask(quick(), says="What is\n on  tonight?")
    assert "“What is on tonight?”" in answer.text
    assert 35 <= len(answer.texts) <= 50
    assert all(len(text.split()) == 1 for text in answer.texts)
    assert answer.finish_reason == "stop"


async def test_quote_is_shortened_when_the_message_is_long() -> None:
    answer = await ask(quick(), says="abcdefghi " * 5000)
    assert "abcdefghi…”" in answer.text
    assert len(answer.text) < 400


async def test_answer_is_the_same_when_asked_again() -> None:
    provider = quick()
    assert (await ask(provider)).deltas == (await ask(provider)).deltas


async def test_last_user_message_is_the_one_quoted_when_there_are_several() -> None:
    messages: list[Message] = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "image_url"}]},
        {"role": "assistant", "content": "third"},
    ]
    answer = await gather(quick().chat(ChatRequest(messages=messages)))
    assert "“second”" in answer.text


async def test_answer_comes_when_there_is_no_user_message_at_all() -> None:
    answer = await gather(quick().chat(ChatRequest(messages=[{"role": "system"}])))
    assert answer.text.startswith("Hello! You said: “”.")


async def test_answer_takes_its_pace_when_one_is_set() -> None:
    started = time.monotonic()
    answer = await ask(ScriptedProvider(pace_seconds=0.3))
    took = time.monotonic() - started
    assert answer.failure is None
    assert 0.28 <= took < 1.0


async def test_answer_has_the_tokens_asked_for_when_tokens_is_given() -> None:
    answer = await ask(quick(), says="one two [[script: tokens=200 delay_ms=0]]")
    assert answer.text.split() == [f"tok-{i}" for i in range(200)]
    assert len(answer.texts) == 200
    assert answer.usage == Usage(prompt_tokens=5, completion_tokens=200)


async def test_answer_is_empty_and_complete_when_no_tokens_are_asked_for() -> None:
    answer = await ask(quick(), says="[[script: tokens=0]]")
    assert answer.texts == []
    assert answer.finish_reason == "stop"


async def test_text_is_said_exactly_when_text_is_given() -> None:
    answer = await ask(quick(), says=r'[[script: text="  two \"words\"\n[[and]] \\ more  "]]')
    assert answer.text == '  two "words"\n[[and]] \\ more  '


async def test_answer_ends_for_length_when_max_tokens_is_smaller() -> None:
    answer = await ask(quick(), says="[[script: tokens=9]]", max_tokens=4)
    assert answer.text == "tok-0 tok-1 tok-2 tok-3"
    assert answer.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


async def test_delays_are_kept_when_given_in_the_directive() -> None:
    started = time.monotonic()
    provider = ScriptedProvider(pace_seconds=100)
    answer = await ask(provider, says="[[script: tokens=5 delay_ms=20 first_ms=50]]")
    took = time.monotonic() - started
    assert answer.failure is None
    assert 0.125 <= took < 1.0


@pytest.mark.parametrize(
    ("directive", "said", "code", "retryable"),
    [
        ("tokens=9 fail_after=4 error=provider_rate_limited", 4, "provider_rate_limited", True),
        ("tokens=9 fail_after=4", 4, "provider_unavailable", True),
        ("tokens=9 fail_after=9", 9, "provider_unavailable", True),
        ("error=provider_unauthorized", 0, "provider_unauthorized", False),
        ("tokens=9 disconnect_after=2", 2, "provider_cut", True),
        ("tokens=0 disconnect_after=0", 0, "provider_cut", True),
    ],
)
async def test_failure_comes_after_the_deltas_said_when_asked_for(
    directive: str, said: int, code: str, retryable: bool
) -> None:
    answer = await ask(quick(), says=f"[[script: {directive}]]")
    assert len(answer.texts) == said
    assert answer.failure is not None
    assert (answer.code, answer.failure.retryable) == (code, retryable)
    assert answer.failure.details["partial"] is (said > 0)
    assert answer.finish_reason is None


async def test_answer_is_whole_when_the_failure_lies_beyond_its_end() -> None:
    answer = await ask(quick(), says="[[script: tokens=3 fail_after=4]]")
    assert (len(answer.texts), answer.finish_reason) == (3, "stop")


@pytest.mark.parametrize(
    ("directive", "limits", "timeout", "limit", "said"),
    [
        ("tokens=9 stall_after=3", {"between_tokens_seconds": 0.05}, None, "between tokens", 3),
        ("tokens=9 stall_after=0", {"first_byte_seconds": 0.05}, None, "first byte", 0),
        ("first_ms=600000", {"first_byte_seconds": 0.05}, None, "first byte", 0),
        ("tokens=9 stall_after=3", {}, 0.05, "total", 3),
        ("tokens=9 delay_ms=40", {"total_seconds": 0.1}, 5.0, "total", 3),
    ],
)
async def test_time_runs_out_when_the_script_is_slower_than_a_limit(
    directive: str, limits: dict[str, float], timeout: float | None, limit: str, said: int
) -> None:
    answer = await ask(quick(**limits), says=f"[[script: {directive}]]", timeout_seconds=timeout)
    assert (answer.code, answer.limit) == ("provider_timeout", limit)
    assert limit in str(answer.failure)
    assert len(answer.texts) == said


async def test_call_is_closed_at_once_when_its_task_is_cancelled_while_stalling() -> None:
    provider = quick()
    task = asyncio.create_task(ask(provider, says="[[script: tokens=9 stall_after=1]]"))
    await asyncio.sleep(0.01)
    assert provider.open_calls == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (provider.calls, provider.open_calls) == (1, 0)


async def test_call_is_closed_when_the_iterator_is() -> None:
    provider = quick()
    deltas = provider.chat(request(says="[[script: tokens=9]]"))
    assert (await anext(deltas)).text == "tok-0"
    assert provider.open_calls == 1
    await deltas.aclose()
    assert provider.open_calls == 0


async def test_others_get_their_turn_when_an_answer_is_long_and_without_delay() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await ask(quick(), says="[[script: tokens=1000 delay_ms=0]]")
    counting.cancel()
    assert turns > 50


async def test_answer_is_an_instance_of_the_schema_when_one_is_given() -> None:
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}, "kind": {"enum": ["news", "other"]}},
    }
    answer = await ask(quick(), schema=schema)
    assert json.loads(answer.text) == {"title": "title", "kind": "news"}


async def test_directive_text_is_said_when_a_schema_is_given_as_well() -> None:
    answer = await ask(quick(), says='[[script: text="no json"]]', schema={"type": "object"})
    assert answer.text == "no json"


async def test_nothing_remains_when_the_provider_is_closed() -> None:
    provider = quick()
    await ask(provider)
    await provider.aclose()
    assert provider.open_calls == 0

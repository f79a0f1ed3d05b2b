"""What goes wrong with a provider gets one clear name, and is tried again only where it is safe."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from machina.connectors.llm import OpenAICompatibleProvider
from tests.connectors.answers import ask, request
from tests.connectors.conftest import MakeProvider
from tests.provider_server import ProviderServer

KEY = "sk-test-1234"


@pytest.mark.parametrize(
    ("model", "code", "retryable", "phrase"),
    [
        ("status-401", "provider_unauthorized", False, "check OPENAI_API_KEY"),
        ("status-403", "provider_unauthorized", False, "check OPENAI_API_KEY"),
        ("status-404", "provider_not_found", False, "the model 'status-404'"),
        ("status-400,message=too_long", "provider_rejected", False, "(HTTP 400): too long"),
        ("status-422", "provider_rejected", False, "refused with 422"),
        ("status-307", "provider_rejected", False, "redirects (HTTP 307)"),
        ("status-429,code=insufficient_quota", "provider_rate_limited", False, "limits our rate"),
        ("refusal-cut", "provider_rejected", False, "rejected the request (HTTP 400)"),
        ("garbage", "provider_invalid", False, "JSON that cannot be read"),
        ("nested", "provider_invalid", False, "JSON that cannot be read"),
        ("not-an-object", "provider_invalid", False, "JSON that is no object"),
        ("html", "provider_invalid", False, "no event stream: check OPENAI_BASE_URL"),
        ("huge-line", "provider_invalid", False, "a line of more than 1048576 bytes"),
        ("disguised", "provider_invalid", False, "not HTTP as we know it"),
        ("no-http", "provider_invalid", False, "not HTTP as we know it"),
        ("plain-json-error", "provider_not_found", False, "no such model"),
        ("error-in-stream,code=401", "provider_unauthorized", False, "an error in the answer"),
        ("error-in-stream,code=invalid_request_error", "provider_rejected", False, "is on fire"),
        ("error-in-stream,code=insufficient_quota", "provider_rate_limited", False, "is on fire"),
    ],
)
async def test_failure_is_named_and_final_when_trying_again_would_not_help(
    provider: OpenAICompatibleProvider,
    server: ProviderServer,
    model: str,
    code: str,
    retryable: bool,
    phrase: str,
) -> None:
    answer = await ask(provider, model)
    assert answer.failure is not None
    assert (answer.code, answer.failure.retryable) == (code, retryable)
    assert phrase in answer.failure.message
    assert f"127.0.0.1:{server.port}" in answer.failure.message
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("model", "code", "tries", "waited"),
    [
        ("status-429", "provider_rate_limited", 4, [0.5, 1.0, 2.0]),
        ("status-500", "provider_unavailable", 3, [0.5, 1.0]),
        ("status-529", "provider_unavailable", 3, [0.5, 1.0]),
        ("reset", "provider_cut", 3, [0.5, 1.0]),
        ("cut,after=0", "provider_cut", 3, [0.5, 1.0]),
        ("cut-clean,after=0", "provider_cut", 3, [0.5, 1.0]),
        ("comments-only", "provider_cut", 3, [0.5, 1.0]),
        ("plain-json-cut", "provider_cut", 3, [0.5, 1.0]),
        ("error-in-stream,after=0", "provider_unavailable", 3, [0.5, 1.0]),
        ("error-in-stream,after=0,code=429", "provider_rate_limited", 4, [0.5, 1.0, 2.0]),
    ],
)
async def test_call_is_repeated_a_few_times_when_nothing_was_said(
    provider: OpenAICompatibleProvider,
    server: ProviderServer,
    pauses: list[float],
    model: str,
    code: str,
    tries: int,
    waited: list[float],
) -> None:
    answer = await ask(provider, model)
    assert answer.failure is not None
    assert (answer.code, answer.failure.retryable, answer.deltas) == (code, True, [])
    assert answer.failure.details["partial"] is False
    assert (len(server.requests), pauses) == (tries, waited)


@pytest.mark.parametrize("model", ["status-429-3", "status-503-2", "reset-2"])
async def test_answer_comes_whole_when_a_later_try_succeeds(
    provider: OpenAICompatibleProvider, server: ProviderServer, model: str
) -> None:
    answer = await ask(provider, f"{model},n=3")
    assert answer.failure is None
    assert answer.texts == ["tok-0", " tok-1", " tok-2"]
    assert len(server.requests) == int(model[-1]) + 1
    assert all(seen.body == server.requests[0].body for seen in server.requests)


@pytest.mark.parametrize(
    ("model", "code", "phrase"),
    [
        ("cut", "provider_cut", "cut the connection"),
        ("cut-reset", "provider_cut", "cut the connection"),
        ("cut-midline", "provider_cut", "without a reason for finishing"),
        ("cut-clean", "provider_cut", "without a reason for finishing"),
        ("error-in-stream,after=3", "provider_unavailable", "the engine is on fire"),
    ],
)
async def test_failure_ends_the_answer_without_another_try_when_something_was_said(
    provider: OpenAICompatibleProvider,
    server: ProviderServer,
    pauses: list[float],
    model: str,
    code: str,
    phrase: str,
) -> None:
    answer = await ask(provider, model)
    assert answer.failure is not None
    assert (answer.code, answer.text) == (code, "tok-0 tok-1 tok-2")
    assert phrase in answer.failure.message
    assert (answer.finish_reason, answer.failure.details["partial"]) == (None, True)
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize(
    ("value", "reported", "pause"),
    [
        ("2", 2.0, 2.5),
        ("0.25", 0.25, 0.75),
        ("99999999", 60.0, 60.5),
        ("inf", 60.0, 60.5),
        ("past", 0.0, 0.5),
        ("-3", None, 0.5),
        ("nan", None, 0.5),
        ("soon", None, 0.5),
    ],
)
async def test_retry_after_is_honoured_when_it_makes_sense(
    provider: OpenAICompatibleProvider,
    pauses: list[float],
    value: str,
    reported: float | None,
    pause: float,
) -> None:
    answer = await ask(provider, f"status-429,retry_after={value}")
    assert answer.failure is not None
    assert answer.failure.retry_after == reported
    assert pauses[0] == pause


async def test_retry_after_is_honoured_when_it_is_a_date(
    provider: OpenAICompatibleProvider, pauses: list[float]
) -> None:
    answer = await ask(provider, "status-429-1,retry_after=date")
    assert answer.failure is None
    assert 28 <= pauses[0] <= 31


async def test_failure_comes_at_once_when_the_deadline_is_before_the_next_try(
    provider: OpenAICompatibleProvider, pauses: list[float]
) -> None:
    answer = await ask(provider, "status-429,retry_after=20", timeout_seconds=10)
    assert answer.failure is not None
    assert (answer.code, answer.failure.retry_after, pauses) == ("provider_rate_limited", 20.0, [])


async def test_retries_stay_a_small_share_of_all_calls_when_half_of_them_fail(
    provider: OpenAICompatibleProvider, server: ProviderServer
) -> None:
    codes = [(await ask(provider, "flaky,n=1")).code for _ in range(100)]
    assert len(server.requests) <= 120
    assert set(codes) == {None, "provider_unavailable"}


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_key_is_not_in_the_message_when_the_provider_quotes_it(
    provider: OpenAICompatibleProvider, status: int
) -> None:
    answer = await ask(provider, f"status-{status},message=bad_key:{KEY}")
    assert answer.failure is not None
    assert KEY not in answer.failure.message
    assert KEY not in repr(answer.failure)


async def test_message_says_to_set_the_key_when_none_was_sent(make_provider: MakeProvider) -> None:
    answer = await ask(make_provider(api_key=None), "status-401")
    assert "set OPENAI_API_KEY" in str(answer.failure)


async def test_message_is_short_and_printable_when_the_provider_says_much(
    provider: OpenAICompatibleProvider,
) -> None:
    answer = await ask(provider, "status-400,message=" + "long\x1b_" * 5000)
    assert answer.failure is not None
    assert answer.failure.message.endswith("…")
    assert answer.failure.message.isprintable()
    assert len(answer.failure.message) < 300


@pytest.mark.parametrize(
    ("model", "limits", "timeout", "limit", "said"),
    [
        ("slow-headers", {"first_byte_seconds": 0.1}, None, "first byte", 0),
        ("slow-first", {"first_byte_seconds": 0.1}, None, "first byte", 0),
        ("stall", {"between_tokens_seconds": 0.1}, None, "between tokens", 3),
        ("stall", {"total_seconds": 0.1}, None, "total", 3),
        ("stall", {}, 0.1, "total", 3),
        ("n=100,delay_ms=20", {"between_tokens_seconds": 1.0}, 0.15, "total", None),
        ("slow-headers", {}, 0.0, "total", 0),
    ],
)
async def test_time_runs_out_and_the_connection_closes_when_the_provider_is_slow(
    make_provider: MakeProvider,
    server: ProviderServer,
    model: str,
    limits: dict[str, Any],
    timeout: float | None,
    limit: str,
    said: int | None,
) -> None:
    started = time.monotonic()
    answer = await ask(make_provider(**limits), model, timeout_seconds=timeout)
    assert time.monotonic() - started < 1.0
    assert answer.failure is not None
    assert (answer.code, answer.failure.retryable) == ("provider_timeout", True)
    assert (answer.limit, f"the {limit} limit of 0" in answer.failure.message) == (limit, True)
    assert said is None or len(answer.texts) == said
    await server.wait_closed_connections(len(server.connections))
    assert len(server.requests) <= 1


async def test_limit_for_the_first_byte_counts_from_the_request_when_headers_come_late(
    make_provider: MakeProvider,
) -> None:
    provider = make_provider(first_byte_seconds=0.3, between_tokens_seconds=0.1)
    answer = await ask(provider, "slow-headers,first_ms=200,delay_ms=50,n=3")
    assert (answer.failure, answer.text) == (None, "tok-0 tok-1 tok-2")


async def test_time_of_a_slow_consumer_is_not_the_providers_when_limits_are_short(
    make_provider: MakeProvider,
) -> None:
    provider = make_provider(between_tokens_seconds=0.06, first_byte_seconds=0.06)
    said = []
    async for delta in provider.chat(request("n=4")):
        said.append(delta.text)
        await asyncio.sleep(0.09)
    assert "".join(said) == "tok-0 tok-1 tok-2 tok-3"


async def test_answer_is_stopped_when_it_never_ends(make_provider: MakeProvider) -> None:
    answer = await ask(make_provider(max_answer_bytes=100_000), "endless,bytes=1000")
    assert (answer.code, len(answer.text)) == ("provider_invalid", 100_000)
    assert "longer than 100000 bytes" in str(answer.failure)


async def test_answer_is_stopped_when_it_exceeds_max_tokens(
    provider: OpenAICompatibleProvider,
) -> None:
    answer = await ask(provider, "endless,bytes=1000", max_tokens=10)
    assert answer.code == "provider_invalid"
    assert "longer than max_tokens of 10" in str(answer.failure)


async def test_answer_is_not_taken_for_whole_when_its_framing_breaks(
    make_provider: MakeProvider, server: ProviderServer
) -> None:
    answer = await ask(make_provider(between_tokens_seconds=0.1), "bad-framing")
    # aiohttp closes the connection and tells nobody; the limit of time finds it.
    assert answer.code in ("provider_cut", "provider_timeout")
    assert (answer.text, answer.finish_reason) == ("tok-0 tok-1 tok-2", None)
    await server.wait_closed_connections(1)


async def test_provider_is_unavailable_when_nothing_listens(
    make_provider: MakeProvider, pauses: list[float]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        answer = await ask(make_provider(base_url=url))
    assert answer.code == "provider_unavailable"
    assert "cannot be reached" in str(answer.failure)
    assert len(pauses) == 2


async def test_provider_is_unavailable_when_its_name_is_unknown(
    make_provider: MakeProvider,
) -> None:
    answer = await ask(make_provider(base_url="http://nowhere.invalid/v1"))
    assert answer.code == "provider_unavailable"
    assert "nowhere.invalid cannot be reached" in str(answer.failure)


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """The port of a listener whose queue is full: connecting to it neither works nor fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for sock in waiting:
            sock.close()


async def test_connect_limit_is_named_and_tried_again_when_connecting_hangs(
    make_provider: MakeProvider, full_backlog: int, pauses: list[float]
) -> None:
    provider = make_provider(base_url=f"http://127.0.0.1:{full_backlog}/v1", connect_seconds=0.1)
    answer = await ask(provider)
    assert (answer.code, answer.limit) == ("provider_timeout", "connect")
    assert "the connect limit of 0.1 s" in str(answer.failure)
    assert len(pauses) == 2

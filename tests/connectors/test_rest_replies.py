"""What an answer is for a task: JSON, text, nothing, or a failure."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from machina.errors import ConnectorFailed
from tests.connectors.test_rest_calls import Shop
from tests.egress.server import Answer, Server, ok


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Server() as server:
        shop = Shop(server, tmp_path)
        shop.path("/x")
        yield shop
        await shop.client.aclose()


def answering(body: bytes, kind: str = "", status: int = 200) -> Answer:
    return Answer(status, body, {"Content-Type": kind} if kind else {})


@pytest.mark.parametrize(
    ("body", "kind", "data"),
    [
        (b'{"a": [1, 2.5, null]}', "application/json", {"a": [1, 2.5, None]}),
        (b'{"a": 1}', "text/html", {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}\n', "application/json", {"a": 1}),
        (b"[]", "", []),
        (b'"text"', "application/json", "text"),
        (b"12", "", 12),
        (b"12", "text/csv", "12"),
        (b"null", "application/json", None),
        (b"", "application/json", None),
        (b" \r\n", "text/plain", None),
        (b"plain text", "text/plain", "plain text"),
        (b"{not json}", "application/json", "{not json}"),
        (b"NaN", "application/json", "NaN"),
        (b"<p>x</p>", "text/html; charset=utf-8", "<p>x</p>"),
        ("Zoë".encode("latin-1"), 'text/plain; charset="iso-8859-1"', "Zoë"),
        ("Zoë".encode(), "text/plain; charset=klingon", "Zoë"),
        ("Zoë".encode("latin-1"), "text/plain", "Zo\ufffd"),
    ],
)
async def test_the_data_is_json_or_text(shop: Shop, body: bytes, kind: str, data: Any) -> None:
    shop.server.answer = lambda seen: answering(body, kind)

    reply = await shop.call("get-x")

    assert (reply.data, dict(reply.envelope)) == (data, {"status": True})


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
async def test_every_status_of_two_hundred_is_a_success(shop: Shop, status: int) -> None:
    shop.server.answer = lambda seen: Answer(status, b"")

    assert (await shop.call("get-x")).data is None


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 409, 422, 429, 500, 503])
async def test_every_other_status_is_a_failure_with_its_number(shop: Shop, status: int) -> None:
    body = b"" if status == 304 else b'{"error": "no\x1b[2J\r\n such\\u202ething"}'
    shop.server.answer = lambda seen: answering(body, "application/json", status)

    with pytest.raises(ConnectorFailed, match=f"HTTP {status}") as failed:
        await shop.call("get-x")

    assert failed.value.code == "connector_failed"
    assert failed.value.details == {"http_status": status}
    assert failed.value.message.isprintable()
    assert failed.value.retryable == (status == 429 or status >= 500)
    for part in ("'shop'", "'get-x'", "task 't' of workflow 'w'"):
        assert part in failed.value.message


async def test_a_large_answer_is_read(shop: Shop) -> None:
    rows = [{"n": n, "text": "x" * 50} for n in range(20_000)]
    packed = gzip.compress(json.dumps(rows).encode())
    shop.server.answer = lambda seen: Answer(200, packed, {"Content-Encoding": "gzip"})

    assert (await shop.call("get-x")).data == rows


@pytest.mark.parametrize("pattern", ["[", '{"a":'])
async def test_json_that_is_nested_too_deep_is_refused(shop: Shop, pattern: str) -> None:
    close = "]" if pattern == "[" else "}"
    for depth, fine in ((100, True), (101, False), (200, False)):
        body = pattern * depth + ("1" if pattern != "[" else "") + close * depth
        shop.server.answer = lambda seen, body=body: answering(body.encode())  # type: ignore[misc]  # bound here
        if fine:
            assert (await shop.call("get-x")).data
        else:
            with pytest.raises(ConnectorFailed, match="deeper than 100"):
                await shop.call("get-x")


async def test_wide_json_is_not_deep(shop: Shop) -> None:
    shop.server.answer = lambda seen: ok([[[]]] * 1_000)

    assert len((await shop.call("get-x")).data) == 1_000


async def test_absurdly_deep_json_is_text(shop: Shop) -> None:
    body = b"[" * 100_000 + b"]" * 100_000
    shop.server.answer = lambda seen: answering(body, "application/json")

    assert (await shop.call("get-x")).data == body.decode()


async def test_a_bomb_fails_the_call(shop: Shop) -> None:
    bomb = gzip.compress(b" " * 20_000_000)
    shop.server.answer = lambda seen: Answer(200, bomb, {"Content-Encoding": "gzip"})

    with pytest.raises(ConnectorFailed, match="decompressed") as failed:
        await shop.call("get-x")
    assert failed.value.code == "connector_failed"

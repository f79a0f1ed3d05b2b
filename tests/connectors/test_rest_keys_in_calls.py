"""Where keys meet inputs: nothing is sent twice, and no message gives one away."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from machina.errors import ConnectorFailed
from tests.connectors.test_rest_calls import Shop, query
from tests.egress.server import Answer, Server

SECRET = "sk-canary/0123456789+abc"


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Server() as server:
        shop = Shop(server, tmp_path)
        yield shop
        await shop.client.aclose()


async def test_a_key_in_the_query_is_sent_once(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "apiKey", "in": "query", "name": "api_key"}}
    shop.path("/x", parameters=[query("api_key")])

    seen = await shop.sent("get-x", {"api_key": "v"}, credentials={"api_key": "v"})
    assert seen.query == [("api_key", "v")]
    seen = await shop.sent("get-x", {"api_key": None}, credentials={"api_key": "v"})
    assert seen.query == [("api_key", "v")]


async def test_a_params_key_that_is_an_input_goes_where_the_scheme_says(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "params", "in": "header", "name": "X-Key"}}
    shop.path("/x")
    shop.path("/x", "post")

    seen = await shop.sent("get-x", {"X-Key": "v", "page": 1})
    assert (seen.headers["x-key"], seen.query) == ("v", [("page", "1")])
    seen = await shop.sent("post-x", {"X-Key": "v", "page": 1})
    assert (seen.headers["x-key"], seen.json) == ("v", {"page": 1})


async def test_an_undeclared_key_among_the_inputs_is_query_like_any_other(shop: Shop) -> None:
    shop.path("/x")

    seen = await shop.sent("get-x", {"apikey": "v"}, credentials={"apikey": "v"})

    assert seen.query == [("apikey", "v")]


async def test_a_header_that_the_task_passes_wins_over_the_connectors(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "http", "scheme": "bearer"}}
    shop.path("/x", parameters=[{"name": "authorization", "in": "header"}])

    seen = await shop.sent("get-x", {"Authorization": "Custom 1"}, credentials={"api_key": "v"})
    assert seen.headers["authorization"] == "Custom 1"
    seen = await shop.sent("get-x", {"Authorization": None}, credentials={"api_key": "v"})
    assert seen.headers["authorization"] == "Bearer v"


async def test_headers_of_the_connector_block_are_sent_and_win_over_the_connectors(
    shop: Shop,
) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "http", "scheme": "bearer"}}
    shop.path("/x", parameters=[{"name": "X-Site", "in": "header"}])
    headers = {"authorization": "Custom 1", "X-Null": None, "X-Site": "block", "X-N": 5}

    seen = await shop.sent(
        "get-x", {"X-Site": "input"}, credentials={"api_key": "v"}, block={"headers": headers}
    )

    assert seen.headers["authorization"] == "Custom 1"
    assert (seen.headers["x-site"], seen.headers["x-n"]) == ("input", "5")
    assert "x-null" not in seen.headers


async def test_declared_parameters_are_filled_from_the_context_variables(shop: Shop) -> None:
    shop.path("/x", parameters=[query("outlet"), {"name": "X-Site", "in": "header"}])

    seen = await shop.sent("get-x", credentials={"outlet": "o", "x-site": "s", "other": "z"})

    assert seen.query == [("outlet", "o")]
    assert seen.headers["x-site"] == "s"


async def test_a_cookie_key_joins_other_cookies(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "apiKey", "in": "cookie", "name": "sid"}}
    shop.path("/x", parameters=[{"name": "flag", "in": "cookie"}])

    seen = await shop.sent("get-x", {"flag": 1}, credentials={"sid": "v"})

    assert seen.headers["cookie"] == "flag=1; sid=v"


async def test_a_cookie_whose_name_ends_like_another_one_is_sent_as_well(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "apiKey", "in": "cookie", "name": "id"}}
    shop.path("/x", parameters=[{"name": "sid", "in": "cookie"}])

    seen = await shop.sent("get-x", {"sid": 1}, credentials={"id": "v"})

    assert seen.headers["cookie"] == "sid=1; id=v"


async def test_a_key_with_a_line_break_inside_is_refused_without_showing_it(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "http", "scheme": "bearer"}}
    shop.path("/x")

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-x", credentials={"api_key": f"{SECRET}\r\nX-Evil: 1"})
    assert failed.value.code == "egress_refused"
    assert SECRET not in failed.value.message


@pytest.mark.parametrize(
    "shown",
    [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        json.dumps({"you sent": SECRET}),
        "Authorization: Bearer some-other-token-of-theirs",
        'api_key="some-other-token-of-theirs"',
    ],
)
async def test_a_failure_shows_the_answer_without_any_credential(shop: Shop, shown: str) -> None:
    shop.path("/x")
    body = f"before {shown} after" + " x" * 5_000
    shop.server.answer = lambda seen: Answer(403, body.encode())

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-x", credentials={"username": "user", "password": SECRET})

    message = failed.value.message
    assert "HTTP 403: before" in message
    assert failed.value.details == {"http_status": 403}
    for part in (SECRET, quote(SECRET, safe=""), shown, "some-other-token-of-theirs"):
        assert part not in message
    assert "after" in message
    assert len(message) < 700


async def test_a_secret_that_is_cut_off_is_not_shown_in_part(shop: Shop) -> None:
    shop.path("/x")
    body = " " * (16_000 - 12) + SECRET
    shop.server.answer = lambda seen: Answer(500, body.encode())

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-x", credentials={"password": SECRET})
    assert SECRET[:6] not in failed.value.message
    assert failed.value.retryable


async def test_no_failure_shows_the_query(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "apiKey", "in": "query", "name": "api_key"}}
    shop.spec["servers"] = [{"url": "http://127.0.0.1:1"}]
    shop.path("/x")

    with pytest.raises(ConnectorFailed) as failed:
        await shop.call("get-x", credentials={"api_key": SECRET})
    assert SECRET not in failed.value.message
    assert failed.value.code == "connector_failed"


async def test_a_redirect_to_another_host_takes_no_key_along(shop: Shop) -> None:
    shop.spec["securitySchemes"] = {"k": {"type": "apiKey", "name": "X-Odd-Name"}}
    shop.path("/x")
    async with Server() as other:
        shop.server.answer = lambda seen: Answer(302, headers={"Location": other.url("/y")})
        await shop.call("get-x", credentials={"api_key": SECRET})
        assert shop.server.last.headers["x-odd-name"] == SECRET
        assert SECRET not in str(other.last)


async def test_credentials_are_not_shown_by_a_call_in_a_log() -> None:
    from machina.connectors.base import ConnectorCall
    from machina.egress import EgressRequest

    call = ConnectorCall("r", "n", "c", None, credentials={"api_key": SECRET})
    request = EgressRequest("GET", "http://a.test", {"X": SECRET}, SECRET.encode())
    assert SECRET not in f"{call!r} {request!r}"

"""Every error in one shape: ours, the framework's, and those that nobody foresaw."""

from __future__ import annotations

import httpx
import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs
from structlog.typing import EventDict

from machina import errors
from machina.api.problems import problem
from machina.errors import MachinaError
from tests.api.harness import Api, assert_problem

SECRET = "mongodb://user:hunter2@db"


def every_error(root: type[MachinaError] = MachinaError) -> list[type[MachinaError]]:
    kinds = [root]
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            kinds += every_error(kind)
    return kinds


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_becomes_a_problem_of_its_own_name(kind: type[MachinaError]) -> None:
    error = kind("What happened.", field="name", retry_after=2.2, details={"newest": "1-4"})
    response = problem(error, instance="/x", request_id="r1")
    answer = httpx.Response(
        response.status_code,
        headers=dict(response.headers)
        | {"x-request-id": "r1", "x-content-type-options": "nosniff"},
        content=bytes(response.body),
    )
    body = assert_problem(answer, kind.status, kind.code)
    assert body["instance"] == "/x"
    assert body["details"] == {"newest": "1-4"}
    assert body["error"]["field"] == "name"
    assert body["error"]["retryable"] == kind.retryable
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (59.1, "60")])
def test_retry_after_is_a_whole_number_of_at_least_one(seconds: float, header: str) -> None:
    error = errors.Overloaded(retry_after=seconds)
    assert problem(error, instance="/", request_id=None).headers["retry-after"] == header


def test_a_message_of_any_text_becomes_ascii() -> None:
    error = errors.NotFound("There is no 'Grüße\n\x00\ud800'.")
    body = bytes(problem(error, instance="/\ud800", request_id=None).body)
    assert body.isascii()
    assert b"\n" not in body


async def test_errors_of_the_framework_have_the_same_shape(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404, "not_found")
    wrong_method = await client.delete("/system/liveness")
    assert_problem(wrong_method, 405, "method_not_allowed")
    assert wrong_method.headers["allow"] == "GET"
    invalid = await client.get(f"/execution/agent-run/{'0' * 24}?compact=perhaps")
    assert assert_problem(invalid, 422, "invalid_request")["error"]["field"] == "compact"
    wrong_type = await client.post(
        "/execution/agent-search", content=b"<a/>", headers={"Content-Type": "text/xml"}
    )
    assert_problem(wrong_type, 415, "unsupported_media_type")
    slash = await client.get("/execution/agent-run/")
    assert_problem(slash, 404, "not_found")


async def test_a_defect_is_500_with_an_id_and_nothing_of_the_inside(
    api: Api, client: httpx.AsyncClient
) -> None:
    async def broken() -> None:
        raise RuntimeError(f"cannot reach {SECRET}")

    api.app.add_api_route("/broken", broken)
    with capture_logs() as logs:
        answer = await client.get("/broken")
    body = assert_problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    assert "RuntimeError" not in answer.text
    (line,) = [line for line in logs if line["event"] == "request.failed"]
    assert line["error_id"] == body["error"]["error_id"]
    assert isinstance(line["exc_info"], RuntimeError)


async def test_a_defect_that_cannot_even_be_logged_is_answered_all_the_same(
    api: Api, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError(SECRET)

    def refuse(_: object, __: str, event: EventDict) -> EventDict:
        if event["event"] == "request.failed":
            raise OSError("the trace cannot be written")
        return event

    api.app.add_api_route("/broken", broken)
    before = structlog.get_config()
    structlog.configure(processors=[refuse, *before["processors"]])
    try:
        answer = await client.get("/broken")
    finally:
        structlog.configure(**before)
    body = assert_problem(answer, 500, "internal_error")
    assert body["meta"]["request_id"] == answer.headers["x-request-id"]
    assert "hunter2" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert body["error"]["error_id"] in caplog.text
    assert "hunter2" not in caplog.text


async def test_an_answer_that_breaks_off_is_logged_and_never_looks_complete(
    api: Api, client: httpx.AsyncClient
) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"server", b"x")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("the other half is missing")

    api.app.mount("/half", half)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/half/x",
        "headers": [(b"x-api-token", api.client.encode())],
        "query_string": b"",
    }
    with capture_logs() as logs:
        await api.in_process(scope, receive, send)
    assert [message.get("more_body") for message in sent] == [None, True]
    assert (b"server", b"x") not in sent[0]["headers"]
    assert "request.broken_off" in [line["event"] for line in logs]


async def test_starting_and_stopping_pass_the_whole_stack(api: Api) -> None:
    told = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Message:
        return next(told)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    scope = {"type": "lifespan", "state": {}}
    await api.app(scope, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert {"resources", "streams", "supervisor", "templates"} == set(scope["state"])


async def test_an_error_that_was_foreseen_is_not_logged_as_a_defect(
    client: httpx.AsyncClient,
) -> None:
    with capture_logs() as logs:
        await client.get(f"/execution/agent-run/{'0' * 24}")
    assert [line["event"] for line in logs] == ["request.served"]
    assert logs[0]["status"] == 404


async def test_a_request_keeps_the_id_its_caller_gave_it(client: httpx.AsyncClient) -> None:
    with capture_logs():
        for given in ("abc-123", "a.b:c_d", "x" * 128):
            answer = await client.get("/system/liveness", headers={"X-Request-Id": given})
            assert answer.headers["x-request-id"] == given


async def test_an_id_that_cannot_be_echoed_is_replaced(client: httpx.AsyncClient) -> None:
    seen = set()
    for given in (b"", b"a b", b"x" * 129, b"a\x1b[2J", "ü".encode(), b"a\nb", b'"'):
        answer = await client.get("/system/liveness", headers=[(b"X-Request-Id", given)])
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 7
    assert all(len(made) == 32 for made in seen)


async def test_every_answer_carries_the_headers_that_keep_browsers_from_guessing(
    api: Api, client: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    for answer in (
        await client.get("/system/liveness"),
        await client.get("/nowhere"),
        await nobody.get("/nowhere"),
        await nobody.get("/docs"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers

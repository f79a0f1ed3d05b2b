"""From what a provider says when it refuses to a failure that says what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.connectors.llm.refusals import Callee, refused_inside, refused_status

CALLEE = Callee("model.example", "gpt-x", "sk-test-1234")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"message": "too long"}', "too long"),
        (b'{"detail": "too long"}', "{'detail': 'too long'}"),
        (b'[{"error": {"message": "too long"}}]', "too long"),
        (b'"too long"', "too long"),
        (b"<p>too\n  long\xff</p>", "<p>too long\ufffd</p>"),
        (b'{"error": {"mess', '{"error": {"mess'),
        (b"", "{'message': ''}"),
    ],
)
def test_message_quotes_the_provider_when_it_refuses_in_any_shape(body: bytes, said: str) -> None:
    failure = refused_status(400, body, CALLEE)
    assert failure.message == f"model.example rejected the request (HTTP 400): {said}"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        ({"code": 401}, "provider_unauthorized", False),
        ({"code": "invalid_api_key"}, "provider_unauthorized", False),
        ({"type": "permission_error"}, "provider_unauthorized", False),
        ({"code": "404"}, "provider_not_found", False),
        ({"code": "model_not_found"}, "provider_not_found", False),
        ({"code": "rate_limit_exceeded"}, "provider_rate_limited", True),
        ({"code": "insufficient_quota"}, "provider_rate_limited", False),
        ({"code": None, "type": "invalid_request_error"}, "provider_rejected", False),
        ({"code": 502}, "provider_unavailable", True),
        ({"code": 7}, "provider_unavailable", True),
        ({"type": "overloaded_error"}, "provider_unavailable", True),
        ({}, "provider_unavailable", True),
        ("overloaded", "provider_unavailable", True),
    ],
)
def test_failure_is_named_by_code_status_or_type_when_it_comes_in_the_answer(
    error: Any, code: str, retryable: bool
) -> None:
    failure = refused_inside({"error": error}, CALLEE)
    assert (failure.code, failure.retryable) == (code, retryable)


@given(st.integers(300, 599), st.binary(max_size=50))
def test_message_is_short_and_printable_when_the_body_is_arbitrary(
    status: int, body: bytes
) -> None:
    failure = refused_status(status, body, CALLEE)
    assert failure.code.startswith("provider_")
    assert failure.message.isprintable()
    assert len(failure.message) < 400


def test_message_stays_short_when_the_refusal_nests_deeply() -> None:
    body = json.dumps({"error": {"message": [[["x"] * 9999]]}}).encode()
    assert len(refused_status(400, body, CALLEE).message) < 300
    assert len(refused_status(400, b"[" * 50_000, CALLEE).message) < 300

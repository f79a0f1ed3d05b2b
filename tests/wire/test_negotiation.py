"""Which format a client gets."""

from __future__ import annotations

import pytest

from machina.errors import Invalid
from machina.wire import FORMATS, NDJSONEncoder, SSEEncoder, negotiate


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "TEXT/Event-Stream; q=1.0",
        "text/event-stream, */*",
        "*/*, text/event-stream",
        "application/json;q=0.9, text/event-stream;q=0.5",
        "application/x-ndjson;q=0.5, text/event-stream;q=0.6",
        "text/event-stream, application/x-ndjson",
        "text/*",
        "text/*, */*;q=0.5",
    ],
)
def test_sse_is_chosen_when_the_client_prefers_it(accept: str) -> None:
    assert isinstance(negotiate(accept), SSEEncoder)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/json",
        "application/x-ndjson, text/event-stream",
        "text/event-stream;q=0",
        "text/event-stream;q=0, */*",
        "text/event-stream;q=0.4, application/x-ndjson;q=0.5",
        "text/event-stream;q=banana",
        "text/event-stream;q=nan",
        "text/event-stream;q=7",
        "text, /, ;;q=, ,,",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ],
)
def test_ndjson_is_chosen_when_the_client_prefers_it_or_nothing(accept: str | None) -> None:
    assert isinstance(negotiate(accept), NDJSONEncoder)


def test_the_named_format_wins_when_the_accept_header_says_otherwise() -> None:
    assert isinstance(negotiate("text/event-stream", "ndjson"), NDJSONEncoder)
    assert isinstance(negotiate("application/x-ndjson", "sse"), SSEEncoder)


def test_an_unknown_format_is_refused_naming_those_that_exist() -> None:
    with pytest.raises(Invalid, match="use one of: ndjson, sse") as refused:
        negotiate("*/*", "xml" * 100)
    assert refused.value.field == "format"
    assert len(refused.value.message) < 200


def test_every_response_gets_an_encoder_of_its_own() -> None:
    assert negotiate(None) is not negotiate(None)


def test_an_accept_header_of_any_size_is_read_in_bounded_time() -> None:
    assert isinstance(negotiate("text/html;q=0.1," * 100_000 + "text/event-stream"), NDJSONEncoder)


def test_the_table_names_each_encoder_once() -> None:
    assert dict(FORMATS) == {"ndjson": NDJSONEncoder, "sse": SSEEncoder}

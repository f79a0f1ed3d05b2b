"""Bytes to texts: the same, however the network cut them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.connectors.llm.answer_reader import AnswerReader
from machina.connectors.llm.base import ChatDelta, Usage
from machina.connectors.llm.lines import LineSplitter, LineTooLong
from machina.connectors.llm.options import ProviderLimits
from machina.connectors.llm.refusals import Callee
from machina.connectors.llm.text_repair import TextRepair
from machina.errors import ModelFailed
from machina.events import Event, encode
from machina.ids import EventId

CALLEE = Callee("model.example", "m", "sk-test-1234")


def read(chunks: Iterable[bytes], **limits: Any) -> tuple[list[str], ChatDelta | str]:
    """The texts, and the last delta or the failure's code."""
    max_tokens = limits.pop("max_tokens", None)
    reader = AnswerReader(ProviderLimits(**limits), CALLEE, max_tokens)
    texts: list[str] = []
    try:
        for chunk in chunks:
            for text in reader.feed(chunk):
                texts.append(text)
        for text in reader.end():
            texts.append(text)
    except ModelFailed as failure:
        return texts, failure.code
    return texts, reader.last_delta()


def event(text: str, *, ascii: bool = True) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(chunk, ensure_ascii=ascii).encode() + b"\n\n"


FINISH = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'
    b"data: [DONE]\n\n"
)


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=8
)
places = st.lists(st.integers(0, 5000), max_size=40)


@given(st.lists(texts, max_size=4), places, st.booleans(), st.sampled_from([b"\n", b"\r\n"]))
def test_deltas_are_the_same_when_a_stream_is_cut_anywhere(
    said: list[str], places: list[int], ascii: bool, line_end: bytes
) -> None:
    data = b": hello\n\n" + b"".join(event(text, ascii=ascii) for text in said) + FINISH
    data = data.replace(b"\n", line_end)
    ended = ChatDelta(finish_reason="stop", usage=Usage(3, 5))
    assert read(cut_at(data, places)) == (said, ended)
    assert read(bytes([byte]) for byte in data) == (said, ended)


@given(st.binary(max_size=200), places)
def test_outcome_is_the_same_when_garbage_is_cut_anywhere(data: bytes, places: list[int]) -> None:
    stream = event("a") + data + b"\n" + event("b") + FINISH
    assert read(cut_at(stream, places)) == read([stream])


_HALVES = [b"\xff", b"\xe2\x82", b"\\ud800", b"\\ud83d", b"\\ude00", b"\\u0000", b"\x00", b"x"]


@given(st.lists(st.lists(st.sampled_from(_HALVES), max_size=4), max_size=5), places)
def test_texts_can_be_encoded_when_characters_are_broken(
    pieces: list[list[bytes]], places: list[int]
) -> None:
    head, tail = b'data: {"choices":[{"delta":{"content":"', b'"}}]}\n'
    lines = [head + b"".join(piece) + tail for piece in pieces]
    said, end = read(cut_at(b"".join(lines) + FINISH, places))
    assert isinstance(end, ChatDelta)
    for text in said:
        text.encode()
        assert "\x00" not in text
        assert json.loads(encode(EventId(1, 1), Event("content", text)))["content"] == text


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=5))
def test_reader_never_breaks_when_members_have_wrong_types(value: Any) -> None:
    for payload in (
        {"choices": value},
        {"choices": [value]},
        {"choices": [{"delta": value, "finish_reason": value}], "usage": value},
        {"choices": [{"delta": {"content": value, "refusal": value}}], "usage": {"k": value}},
        {"usage": {"prompt_tokens": value, "completion_tokens": value}},
        {"error": {"message": value, "code": value, "type": value}},
        {"error": value},
        value,
    ):
        _, end = read([b"data: " + json.dumps(payload).encode() + b"\n", FINISH])
        assert isinstance(end, ChatDelta) or end.startswith("provider_")


@pytest.mark.parametrize(
    ("data", "said", "code"),
    [
        (b"", [], "provider_cut"),
        (b"\n\n", [], "provider_cut"),
        (b": keep-alive\n\n", [], "provider_cut"),
        (event("a"), ["a"], "provider_cut"),
        (event("a")[:-9], [], "provider_cut"),
        (event("a")[:-2], ["a"], "provider_cut"),
        (b'data: {"choices":\n', [], "provider_invalid"),
        (b"data: 17\n", [], "provider_invalid"),
        (b"data: [1]\n", [], "provider_invalid"),
        (b"data: " + b"[" * 100_000 + b"\n", [], "provider_invalid"),
        (b"<!doctype html>\n<p>Hi</p>", [], "provider_invalid"),
        (b"Internal", [], "provider_invalid"),
        (b"{", [], "provider_cut"),
        (b"{oops}", [], "provider_invalid"),
        (b"[1, 2]", [], "provider_invalid"),
        (b'[{"error": {"code": 429, "message": "slow down"}}]', [], "provider_rate_limited"),
        (b'\xef\xbb\xbf {"error": "no"}', [], "provider_unavailable"),
    ],
)
def test_failure_is_named_when_the_body_is_not_an_answer(
    data: bytes, said: list[str], code: str
) -> None:
    assert read([data]) == (said, code)
    assert read(bytes([byte]) for byte in data) == (said, code)


def test_answer_is_complete_when_usage_is_cut_off_after_the_finish_reason() -> None:
    said, end = read([event("a"), FINISH[:90]])
    assert (said, end) == (["a"], ChatDelta(finish_reason="stop"))


def test_answer_is_complete_when_done_comes_without_line_end() -> None:
    assert read([event("a"), b"data: [DONE]"]) == (["a"], ChatDelta(finish_reason="stop"))


def test_nothing_is_read_when_it_comes_after_done() -> None:
    assert read([event("a") + b"data: [DONE]\n\n" + event("b")])[0] == ["a"]
    assert read([event("a") + b"data: [DONE]\n\n", event("b")])[0] == ["a"]


def test_whole_answer_is_one_delta_when_the_server_does_not_stream() -> None:
    body = b'{"choices":[{"message":{"content":"all of it"},"finish_reason":"length"}]}'
    assert read([b"\n", body]) == (["all of it"], ChatDelta(finish_reason="length"))


def test_refusal_is_the_text_when_the_model_refuses() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":null,"refusal":"I cannot"}}]}\n'
    assert read([chunk, FINISH])[0] == ["I cannot"]


@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        ({"max_answer_bytes": 7}, "provider_invalid", 2),  # the umlaut counts twice
        ({"max_answer_bytes": 8}, None, 3),
        ({"max_line_bytes": 50}, "provider_invalid", 0),
    ],
)
def test_answer_is_refused_when_it_exceeds_a_limit(
    limits: dict[str, int], code: str | None, said: int
) -> None:
    heard, end = read([event("abc"), event("dä"), event("ef"), FINISH], **limits)
    assert len(heard) == said
    assert end == code if code else isinstance(end, ChatDelta)


def test_answer_is_refused_when_the_provider_ignores_max_tokens() -> None:
    heard, end = read([event("x" * 1000)] * 6 + [FINISH], max_tokens=10)
    assert (len(heard), end) == (4, "provider_invalid")


def test_whole_answer_is_refused_when_it_is_endless() -> None:
    chunks = [b"{"] + [b" " * 1000] * 100
    assert read(chunks, max_answer_bytes=2000, max_line_bytes=2000) == ([], "provider_invalid")


@given(st.integers(0, 12), places)
def test_line_is_refused_at_the_same_length_when_cut_anywhere(
    length: int, places: list[int]
) -> None:
    splitter = LineSplitter(8)
    lines: list[bytes] = []
    try:
        for chunk in cut_at(b"x" * length + b"\r\n", places):
            lines.extend(splitter.feed(chunk))
        assert (lines, splitter.rest()) == ([b"x" * length], b"")
        assert length <= 8
    except LineTooLong:
        assert length > 8


def test_last_line_is_refused_when_it_is_too_long_by_one_byte() -> None:
    assert read([b"data: 9 bytes+"], max_line_bytes=13) == ([], "provider_invalid")


def test_line_without_end_is_refused_when_it_is_too_long() -> None:
    splitter = LineSplitter(8)
    assert list(splitter.feed(b"x" * 9)) == []
    with pytest.raises(LineTooLong):
        splitter.rest()
    with pytest.raises(LineTooLong):
        list(LineSplitter(8).feed(b"x" * 10))


def test_pair_of_surrogates_is_joined_when_it_was_torn() -> None:
    repair = TextRepair()
    assert [repair.clean(text) for text in ("a\ud83d", "", "\ude00b", "\ud83d")] == [
        "a",
        "",
        "😀b",
        "",
    ]
    assert repair.rest() == "\ufffd"
    assert repair.rest() == ""

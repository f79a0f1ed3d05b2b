"""Records as MongoDB documents: nothing is lost, and no key is one that MongoDB would misread."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from hypothesis import given, settings
from hypothesis import strategies as st

from machina.errors import Invalid
from machina.store import values as embedded
from machina.store.mongo_values import (
    INLINE_NODES,
    Converter,
    TooManyNodes,
    check_record,
    converted,
    decode,
    decode_all,
    escape,
    restore,
    stored_path,
    unescape,
)
from tests.store.strategies import records

keys = st.text(st.sampled_from("$%.aé5E24"), max_size=6)
odd_records = st.dictionaries(
    keys, st.one_of(st.integers(0, 9), st.dictionaries(keys, st.none(), max_size=2)), max_size=3
)


def keys_of(node: Any) -> set[str]:
    if isinstance(node, dict):
        return set(node).union(*map(keys_of, node.values()))
    return set().union(*map(keys_of, node)) if isinstance(node, list) else set()


def stored(record: dict[str, Any], *, has_bytes: bool = True) -> dict[str, Any]:
    return Converter(has_bytes=has_bytes).document(record, 7)


@given(keys)
def test_a_key_comes_back_from_its_stored_form(key: str) -> None:
    assert unescape(escape(key)) == key
    assert "." not in escape(key)
    assert not escape(key).startswith("$")


@given(keys, keys)
def test_two_keys_never_share_a_stored_form(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@settings(max_examples=60, deadline=None)
@given(st.one_of(records, odd_records), st.booleans())
def test_a_record_comes_back_over_the_wire_as_the_embedded_store_keeps_it(
    record: dict[str, Any], has_bytes: bool
) -> None:
    record["_id"] = "x"
    document = stored(record, has_bytes=has_bytes)
    kept = embedded.decode(embedded.encode(record).encode())
    found = decode(RawBSONDocument(bson.encode(document)))
    assert found == (kept, 7)
    assert {type(value) for value in found.record.values()} == {type(v) for v in kept.values()}
    assert not any(key.startswith("$") or "." in key for key in keys_of(document))
    assert restore(document) == (kept, 7)


def test_numbers_of_64_bits_come_back_as_plain_numbers() -> None:
    record = {"_id": "x", "n": [2**62, -(2**63), 5, 2.0]}
    (n, *_) = decode(RawBSONDocument(bson.encode(stored(record)))).record.values()
    assert n == "x"
    found = decode(RawBSONDocument(bson.encode(stored(record)))).record["n"]
    assert [(type(value), value) for value in found] == [
        (int, 2**62), (int, -(2**63)), (int, 5), (float, 2.0)
    ]  # fmt: skip


def test_what_the_embedded_store_changes_is_changed_alike() -> None:
    class Word(StrEnum):
        A = "a"

    record = {
        "_id": "x",
        "nan": [float("nan"), float("inf")],
        "tuple": (1, (2,)),
        "half": "a\ud800b",
        "k\ud800": Word.A,
        "naive": datetime(2026, 1, 31, 8, 0, 0, 250_999, UTC).replace(tzinfo=None),
    }
    assert stored(record) == {
        "_id": "x",
        "nan": [None, None],
        "tuple": [1, [2]],
        "half": "a\ufffdb",
        "k\ufffd": "a",
        "naive": datetime(2026, 1, 31, 8, 0, 0, 250_000, UTC),
        "%v": 7,
    }
    assert type(stored(record)["k\ufffd"]) is str


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, {1: 1}, {"a\0": 1}, object(), {1, 2}, datetime.now(UTC).date()]
)
def test_what_no_store_keeps_is_refused(value: Any) -> None:
    for place in (value, [value], {"a": value}):
        with pytest.raises(Invalid):
            stored({"_id": "x", "value": place})


def test_a_record_is_not_nested_without_end() -> None:
    nested: Any = []
    for _ in range(250):
        nested = [nested]
    with pytest.raises(Invalid, match="200 levels"):
        stored({"_id": "x", "value": nested})


def test_bytes_are_marked_text_for_a_server_that_has_none() -> None:
    record = {"_id": "x", "value": {"b": b"\0\xff"}, "authored": {"%bytes": "AP8="}}
    document = stored(record, has_bytes=False)
    assert document["value"] == {"b": {"%bytes": "AP8="}}
    assert document["authored"] == {"%25bytes": "AP8="}
    assert restore(document).record == record


def test_a_path_is_stored_part_by_part() -> None:
    assert stored_path("body.$ref.a b.100%.0") == "body.%24ref.a b.100%25.0"


async def test_a_large_record_is_converted_and_decoded_off_the_event_loop() -> None:
    record = {"_id": "x", "value": [{"n": n} for n in range(INLINE_NODES)]}
    with pytest.raises(TooManyNodes):
        Converter(has_bytes=True, most=INLINE_NODES).document(record, 1)
    document = await converted(True, lambda converter: converter.document(record, 1))
    assert await decode_all([RawBSONDocument(bson.encode(document))]) == [(record, 1)]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"_id": 5},
        {"_id": ""},
        {"_id": "a\0"},
        {"_id": "\ud800"},
        {"_id": "x", "project": ["p"]},
        {"_id": "x", "name": {"a": 1}},
        {"_id": "x", "name": b""},
        {"_id": "x", "name": 5},
    ],
)
def test_a_record_that_its_collection_cannot_hold_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        check_record("agents", record)
    check_record("agents", {"_id": "x", "project": "p", "name": None, "status": 5})
    check_record("runs", {"_id": "x", "wake_at": datetime.now(UTC), "published": False})

"""Records survive as JSON text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.errors import Invalid
from machina.store.base import Record
from machina.store.values import decode, encode
from tests.store.strategies import unhurried

keys = st.one_of(
    st.text(max_size=4).filter(lambda key: "\0" not in key),
    st.sampled_from(("$:date", "$:bytes", "$:literal", "$ref", "a.b", "", "$")),
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
        st.binary(max_size=4),
        st.datetimes(timezones=st.just(UTC)).map(
            lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


def stored(record: Record) -> Record:
    return decode(encode(record).encode())


@unhurried
@given(st.dictionaries(keys, anything, max_size=4))
def test_every_record_comes_back_as_it_was(record: Record) -> None:
    assert stored(record) == record


def test_the_order_of_fields_is_kept() -> None:
    record = {"b": 1, "a": {"z": 1, "y": 2}}
    assert [*stored(record)["a"]] == ["z", "y"]
    assert [*stored(record)] == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            datetime(2026, 1, 31, 8, 0, 0, 123_999, UTC).replace(tzinfo=None),
            datetime(2026, 1, 31, 8, 0, 0, 123_000, UTC),
        ),
        (
            datetime(2026, 1, 31, 8, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 1, 31, 6, tzinfo=UTC),
        ),
        (float("nan"), None),
        (float("inf"), None),
        ("a\ud800b", "a�b"),
        ((1, 2), [1, 2]),
        (StrEnum("Word", {"ONE": "one"}).ONE, "one"),  # type: ignore[attr-defined]  # made here
        ({"\ud800": {"$:date": "no date"}}, {"�": {"$:date": "no date"}}),
        ("a\0b", "a\0b"),
    ],
)
def test_values_are_brought_into_the_form_of_the_store(value: Any, expected: Any) -> None:
    assert stored({"v": value}) == {"v": expected}


def deep(levels: int) -> Record:
    record: Record = {}
    for _ in range(levels):
        record = {"a": record}
    return record


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"a": 2**64}, "'a' exceeds 64 bits"),
        ({"a": [{"b": -(2**63) - 1}]}, r"'a\[0\].b' exceeds 64 bits"),
        ({"a": {1: 2}}, "Field names are text"),
        ({"a": {"b\0": 2}}, "NUL"),
        ({"a": object()}, "type object"),
        ({"a": {1}}, "type set"),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC).date()}, "type date"),
        (deep(300), "nested deeper"),
    ],
)
def test_what_cannot_be_stored_is_refused(record: Record, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        encode(record)

"""What changes do to single records."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given

from machina.store.base import CHANGE_OPERATORS, QueryRefused
from machina.store.changes import compile_change, start_record
from machina.store.paths import project
from tests.store.strategies import records, unhurried, values


def changed(record: dict[str, Any], change: Any, *, inserting: bool = False) -> dict[str, Any]:
    before = deepcopy(record)
    after = compile_change(change)(record, inserting=inserting)
    assert record == before, "the record given is left as it was"
    return after


@pytest.mark.parametrize(
    ("record", "change", "expected"),
    [
        ({}, {"$set": {"a": 1}}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"$set": {"a.b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({}, {"$set": {"a.b.c": 1}}, {"a": {"b": {"c": 1}}}),
        ({"a": [1, 2]}, {"$set": {"a.1": 5}}, {"a": [1, 5]}),
        ({"a": [1]}, {"$set": {"a.3": 5}}, {"a": [1, None, None, 5]}),
        ({"a": [{"b": 1}]}, {"$set": {"a.0.b": 2}}, {"a": [{"b": 2}]}),
        ({"a": 1}, {"$unset": {"a": ""}}, {}),
        ({"a": {"b": 1, "c": 2}}, {"$unset": {"a.b": ""}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"$unset": {"a.0": ""}}, {"a": [None, 2]}),
        ({"a": 1}, {"$unset": {"b.c": "", "a.b": ""}}, {"a": 1}),
        ({"a": 1}, {"$inc": {"a": 2}}, {"a": 3}),
        ({}, {"$inc": {"a.b": -1}}, {"a": {"b": -1}}),
        ({"a": 1}, {"$inc": {"a": 0.5}}, {"a": 1.5}),
        ({"a": 1}, {"$max": {"a": 3}}, {"a": 3}),
        ({"a": 4}, {"$max": {"a": 3}}, {"a": 4}),
        ({}, {"$max": {"a": 3}}, {"a": 3}),
        ({"a": 9}, {"$max": {"a": "text is greater"}}, {"a": "text is greater"}),
        ({}, {"$push": {"a": 1}}, {"a": [1]}),
        ({"a": [1]}, {"$push": {"a": {"b": 2}}}, {"a": [1, {"b": 2}]}),
        ({"a": [1]}, {"$push": {"a": [2]}}, {"a": [1, [2]]}),
        ({"a": 1}, {"$setOnInsert": {"a": 2}}, {"a": 1}),
        ({"a": 1, "b": 1}, {"$set": {"a": 2}, "$inc": {"b": 1}}, {"a": 2, "b": 2}),
        ({"a": {}}, {"$set": {"a.b": 1}, "$inc": {"a.d": 3}}, {"a": {"b": 1, "d": 3}}),
        ({"_id": "x"}, {"$set": {"_id": "x"}}, {"_id": "x"}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)  # fmt: skip
def test_changes(record: dict[str, Any], change: Any, expected: dict[str, Any]) -> None:
    assert changed(record, change) == expected


def test_set_on_insert_counts_only_while_inserting() -> None:
    assert changed({}, {"$setOnInsert": {"a.b": 1}}, inserting=True) == {"a": {"b": 1}}


def test_every_change_of_the_port_is_known() -> None:
    for name in CHANGE_OPERATORS:
        compile_change({name: {"a": 1}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"$rename": {"a": "b"}}, "'\\$rename' is not known"),
        ({"a": 1}, "'a' is not known"),
        ({"$set": 1}, "takes an object"),
        ({"$set": {"a": 1}, "$inc": {"a": 1}}, "names 'a' twice"),
        ({"$set": {"a": 1, "a.b": 1}}, "names 'a.b' twice"),
        ({"$set": {"a.b": 1, "a.c": 1, "a": 1}}, "twice"),
        ({"$set": {"a.$": 1}}, "cannot change the path"),
        ({"$set": {"a.$[].b": 1}}, "cannot change the path"),
        ({"$set": {"$a": 1}}, "cannot change the path"),
        ({"$set": {"a..b": 1}}, "not the path"),
        ({"$set": {1: 1}}, "as text"),
    ],
)
def test_a_change_outside_the_language_is_refused(change: Any, said: str) -> None:
    with pytest.raises(QueryRefused, match=said):
        compile_change(change)


@pytest.mark.parametrize(
    ("record", "change"),
    [
        ({"_id": "x"}, {"$set": {"_id": "y"}}),
        ({"_id": "x"}, {"$unset": {"_id": ""}}),
        ({"a": 1}, {"$set": {"a.b": 1}}),
        ({"a": None}, {"$set": {"a.b": 1}}),
        ({"a": [1]}, {"$set": {"a.b": 1}}),
        ({"a": [1]}, {"$set": {"a.5000": 1}}),
        ({"a": "1"}, {"$inc": {"a": 1}}),
        ({"a": None}, {"$inc": {"a": 1}}),
        ({"a": True}, {"$inc": {"a": 1}}),
        ({"a": 1}, {"$inc": {"a": "1"}}),
        ({"a": 1}, {"$push": {"a": 1}}),
        ({"a": []}, {"$push": {"a": {"$each": [1]}}}),
    ],
)
def test_a_change_that_does_not_fit_the_record_is_refused(
    record: dict[str, Any], change: Any
) -> None:
    apply = compile_change(change)
    with pytest.raises(QueryRefused):
        apply(record)


def test_an_upsert_starts_from_the_equalities_of_its_query() -> None:
    query = {
        "_id": "x", "a": 1, "b.c": {"$eq": 2}, "d": {"$gt": 1}, "e": {"$in": [1]},
        "$and": [{"f": None}, {"b.g": [1]}], "$or": [{"h": 1}],
    }  # fmt: skip
    assert start_record(query) == {"_id": "x", "a": 1, "b": {"c": 2, "g": [1]}, "f": None}
    with pytest.raises(QueryRefused, match="twice"):
        start_record({"a": 1, "$and": [{"a": 2}]})


@unhurried
@given(records, values)
def test_what_is_set_is_there_and_what_is_unset_is_gone(record: dict[str, Any], value: Any) -> None:
    after = changed(record, {"$set": {"a": value}})
    assert after["a"] == value
    assert "a" not in changed(after, {"$unset": {"a": ""}})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], {"_id": "x"}),
        (["a"], {"_id": "x", "a": {"b": 1, "c": 2}}),
        (["a.b", "l.m"], {"_id": "x", "a": {"b": 1}, "l": [{"m": 1}, {}]}),
        (["a", "a.b"], {"_id": "x", "a": {"b": 1, "c": 2}}),
        (["a.b", "a"], {"_id": "x", "a": {"b": 1, "c": 2}}),
        (["n.x", "nope"], {"_id": "x"}),
    ],
)
def test_projection_keeps_the_named_paths(fields: list[str], expected: dict[str, Any]) -> None:
    record = {"_id": "x", "a": {"b": 1, "c": 2}, "l": [{"m": 1}, 5, {"n": 2}], "n": 3}
    assert project(record, [field.split(".") for field in fields]) == expected

"""What queries mean, on single records: the meaning is MongoDB's."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.store.base import QUERY_OPERATORS, QueryRefused
from machina.store.matching import MAX_CLAUSES, compile_query
from tests.store.strategies import conditions, fields, records, unhurried, values

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def matches(query: Any, record: dict[str, Any]) -> bool:
    return compile_query(query)(record)


@pytest.mark.parametrize(
    ("query", "record", "expected"),
    [
        ({}, {}, True),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": None}, {}, True),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {"a": 0}, False),
        ({"a": None}, {"a": [1, None]}, True),
        ({"a": 1}, {"a": [3, 1]}, True),
        ({"a": [3, 1]}, {"a": [3, 1]}, True),
        ({"a": [3, 1]}, {"a": [1, 3]}, False),
        ({"a": [1]}, {"a": [[1], 2]}, True),
        ({"a": 1}, {"a": [[1], 2]}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False),
        ({"a": NOW}, {"a": NOW.replace(tzinfo=None)}, True),
        ({"a": NOW}, {"a": NOW.astimezone(timezone(timedelta(hours=3)))}, True),
        ({"a": b"x"}, {"a": b"x"}, True),
        ({"a": "x"}, {"a": b"x"}, False),
    ],
)
def test_equality(query: Any, record: dict[str, Any], expected: bool) -> None:
    assert matches(query, record) is expected


@pytest.mark.parametrize(
    ("query", "record", "expected"),
    [
        ({"a.b": 1}, {"a": {"b": 1}}, True),
        ({"a.b": 1}, {"a": [{"b": 2}, {"b": 1}]}, True),
        ({"a.b": 1}, {"a": [{"b": [5, 1]}]}, True),
        ({"a.0": 1}, {"a": [1, 2]}, True),
        ({"a.1.b": 2}, {"a": [{"b": 1}, {"b": 2}]}, True),
        ({"a.0.b": 2}, {"a": [{"b": 1}, {"b": 2}]}, False),
        ({"a.00": 1}, {"a": [1]}, False),
        ({"a.5": 1}, {"a": [1]}, False),
        ({"a.0.b": 1}, {"a": [1]}, False),
        ({"a.0": 1}, {"a": {"0": 1}}, True),
        ({"a.b": None}, {"a": 5}, True),
        ({"a.b": None}, {"a": [{"b": 1}, {"c": 2}]}, True),
        ({"a.b": None}, {"a": [1, 2]}, False),
        ({"a.b": None}, {"a": []}, False),
        ({"a.b": {"$exists": False}}, {"a": [1, 2]}, True),
        ({"a.b": {"$exists": True}}, {"a": [{"c": 1}, {"b": None}]}, True),
        ({"value.sport:x.@id": "x 1"}, {"value": {"sport:x": {"@id": "x 1"}}}, True),
        ({"metadata.my key": 1}, {"metadata": {"my key": 1}}, True),
        ({"schema.$ref": "#/a"}, {"schema": {"$ref": "#/a"}}, True),
    ],
)  # fmt: skip
def test_paths_spread_over_lists(query: Any, record: dict[str, Any], expected: bool) -> None:
    assert matches(query, record) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"$gt": 1}, 2, True),
        ({"$gt": 1}, 1.5, True),
        ({"$gt": 1}, True, False),
        ({"$gt": 1}, "2", False),
        ({"$gte": 1, "$lt": 2}, 1, True),
        ({"$gte": 1, "$lt": 2}, 2, False),
        ({"$gt": 4, "$lt": 6}, [1, 9], True),  # each by another element, as in MongoDB
        ({"$gt": "a"}, "b", True),
        ({"$lt": "Z"}, "a", False),
        ({"$gte": False}, True, True),
        ({"$gt": NOW}, NOW + timedelta(milliseconds=1), True),
        ({"$gt": NOW}, NOW + timedelta(microseconds=1), False),
        ({"$lte": NOW}, NOW.replace(tzinfo=None), True),
        ({"$lt": b"bb"}, b"c", True),
        ({"$gte": None}, None, True),
        ({"$gt": None}, None, False),
        ({"$gt": None}, 1, False),
        ({"$lt": 10**30}, 5, True),
    ],
)
def test_comparisons_stay_within_a_type(condition: Any, value: Any, expected: bool) -> None:
    assert matches({"a": condition}, {"a": value}) is expected


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"$ne": 1}, 2, True),
        ({"$ne": 1}, [2, 1], False),
        ({"$in": [1, "x"]}, "x", True),
        ({"$in": [1, "x"]}, ["y", 1], True),
        ({"$in": []}, 1, False),
        ({"$in": [None]}, None, True),
        ({"$in": [[1, 2]]}, [1, 2], True),
        ({"$in": [{"a": 1}]}, {"a": 1}, True),
        ({"$in": [True]}, 1, False),
        ({"$nin": [1]}, [1, 2], False),
        ({"$nin": []}, 1, True),
        ({"$exists": True}, None, True),
        ({"$exists": 0}, None, False),
        ({"$regex": "^ac"}, "acme:1", True),
        ({"$regex": "^AC", "$options": "i"}, ["x", "acme"], True),
        ({"$regex": "a.c", "$options": "s"}, "a\nc", True),
        ({"$regex": "a c # comment", "$options": "x"}, "ac", True),
        ({"$regex": "^b$", "$options": "m"}, "a\nb", True),
        ({"$regex": "1"}, 1, False),
        ({"$not": {"$gt": 1}}, 1, True),
        ({"$not": {"$gt": 1, "$lt": 3}}, 5, True),
        ({"$not": {"$regex": "x"}}, None, True),
        ({"$size": 2}, [1, 2], True),
        ({"$size": 2}, [[1, 2]], False),
        ({"$size": 0}, "", False),
        ({"$all": [1, 2]}, [2, 3, 1], True),
        ({"$all": [1, 2]}, [1], False),
        ({"$all": [1]}, 1, True),
        ({"$all": []}, [], False),
        ({"$all": [{"$elemMatch": {"b": 1}}, {"$elemMatch": {"c": 2}}]}, [{"b": 1, "c": 2}], True),
        ({"$elemMatch": {"$gt": 4, "$lt": 6}}, [1, 9], False),
        ({"$elemMatch": {"$gt": 4, "$lt": 6}}, [1, 5], True),
        ({"$elemMatch": {"$ne": 1}}, [1, 2], True),
        ({"$elemMatch": {"$not": {"$gt": 1}}}, [2, 3], False),
        ({"$elemMatch": {"b": 1, "c": 2}}, [{"b": 1}, {"c": 2}], False),
        ({"$elemMatch": {"b": 1, "c": 2}}, [{"b": 1, "c": 2}], True),
        ({"$elemMatch": {"$or": [{"b": 1}, {"b": 2}]}}, [{"b": 2}], True),
        ({"$elemMatch": {"$elemMatch": {"$eq": 1}}}, [[0], [1]], True),
        ({"$elemMatch": {"b": 1}}, {"b": 1}, False),
        ({"$eq": {"$gt": 1}}, {"$gt": 1}, True),
        ({"$eq": {"$gt": 1}}, 2, False),
        ({"$ne": {"$gt": 1}}, 2, True),
    ],
)  # fmt: skip
def test_operators(condition: Any, value: Any, expected: bool) -> None:
    assert matches({"a": condition}, {"a": value}) is expected


def test_absent_fields_answer_negative_operators() -> None:
    assert matches({"a": {"$ne": 1}}, {})
    assert matches({"a": {"$nin": [1]}}, {})
    assert not matches({"a": {"$ne": None}}, {})
    assert matches({"a": {"$in": [None]}}, {})
    assert matches({"a": {"$not": {"$exists": True}}}, {})


def test_logical_operators_combine_queries() -> None:
    record = {"a": 1, "b": 2}
    assert matches({"$or": [{"a": 2}, {"b": 2}]}, record)
    assert matches({"$and": [{"a": 1}, {"b": 2}]}, record)
    assert matches({"$nor": [{"a": 2}, {"b": 3}]}, record)
    assert not matches({"a": 1, "$or": [{"b": 3}]}, record)


@pytest.mark.parametrize(
    ("query", "where", "said"),
    [
        ({"$where": "1"}, "$where", "'$where' is not known"),
        ({"a": {"$where": "1"}}, "a.$where", "'$where' is not known"),
        ({"$or": [{"b": 1}, {"a.c": {"$function": {}}}]}, "$or[1].a.c.$function", "'$function'"),
        ({"a": {"$gt": 1, "b": 2}}, "a.b", "'b'"),
        ({"a": {"b": {"$gt": 1}}}, "a", "'$gt' cannot stand here"),
        ({"a": {"$in": [{"$gt": 1}]}}, "a.$in", "'$gt' cannot stand here"),
        ({"a": {"$not": {"$expr": 1}}}, "a.$not.$expr", "'$expr'"),
        ({"a": {"$elemMatch": {"b": {"$lookup": 1}}}}, "a.$elemMatch.b.$lookup", "'$lookup'"),
        ({"$gt": 1}, "$gt", "'$gt' cannot stand here"),
        ({"$not": {"a": 1}}, "$not", "'$not' cannot stand here"),
        ({"a": {"$and": [{}]}}, "a.$and", "'$and' cannot stand here"),
        ({"a": {"$gt": [1]}}, "a.$gt", "takes a number"),
        ({"a": {"$gt": {"b": 1}}}, "a.$gt", "takes a number"),
        ({"a": {"$in": 1}}, "a.$in", "list"),
        ({"a": {"$nin": "abc"}}, "a.$nin", "list"),
        ({"a": {"$all": 1}}, "a.$all", "list"),
        ({"a": {"$size": -1}}, "a.$size", "number"),
        ({"a": {"$size": True}}, "a.$size", "number"),
        ({"a": {"$exists": "yes"}}, "a.$exists", "true or false"),
        ({"a": {"$not": 1}}, "a.$not", "object of operators"),
        ({"a": {"$options": "i"}}, "a", "goes with"),
        ({"a": {"$regex": 1}}, "a.$regex", "texts"),
        ({"a": {"$regex": "x", "$options": "g"}}, "a.$regex", "'g'"),
        ({"a": {"$regex": "("}}, "a.$regex", "Not a regular expression"),
        ({"$or": []}, "$or", "not empty"),
        ({"$and": {"a": 1}}, "$and", "not empty"),
        ({"$and": [1]}, "$and[0]", "object"),
        ({"a": {"$elemMatch": 1}}, "a.$elemMatch", "object"),
        ({"a": object()}, "a", "type object"),
        ({"a": {"b\0": 1}}, "a", "NUL"),
        ({"a": {1: 1}}, "a", "text"),
        ({"a\0": 1}, "a\0", "path"),
        ({"a..b": 1}, "a..b", "path"),
        ({"": 1}, "", "path"),
        ({1: 1}, "", "Field names are text"),
        ([], "", "A query is an object"),
    ],
)
def test_refusals_name_the_operator_and_the_place(query: Any, where: str, said: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        compile_query(query)
    assert refused.value.field == where
    assert said in refused.value.message


def nested(depth: int) -> dict[str, Any]:
    query: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        query = {"$and": [query]}
    return query


def deep_value(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (nested(16), nested(17)),
        (
            {"$or": [{"a": 1}] * ((MAX_CLAUSES - 1) // 2)},
            {"$or": [{"a": 1}] * (MAX_CLAUSES // 2 + 1)},
        ),
        ({"a": {"$in": [*range(10_000)]}}, {"a": {"$in": [*range(10_001)]}}),
        ({"a": {"$regex": "x" * 256}}, {"a": {"$regex": "x" * 257}}),
        ({"a": deep_value(100)}, {"a": deep_value(102)}),
        ({".".join("a" * 100): 1}, {".".join("a" * 101): 1}),
    ],
)
def test_bounds_hold(within: Any, beyond: Any) -> None:
    compile_query(within)
    with pytest.raises(QueryRefused):
        compile_query(beyond)


def test_a_catastrophic_regex_answers_at_once() -> None:
    test = compile_query({"a": {"$regex": "(a+)+$"}})
    began = time.process_time()
    assert not test({"a": "a" * 100_000 + "!"})
    assert test({"a": "a" * 100_000})
    assert time.process_time() - began < 2


def test_every_operator_of_the_port_is_known() -> None:
    operands: dict[str, Any] = {
        "$in": [1], "$nin": [1], "$all": [1], "$not": {"$eq": 1}, "$elemMatch": {"b": 1},
        "$regex": "x", "$exists": True, "$size": 1,
    }  # fmt: skip
    for name in QUERY_OPERATORS - {"$options", "$and", "$or", "$nor"}:
        compile_query({"a": {name: operands.get(name, 1)}})
    for name in ("$and", "$or", "$nor"):
        compile_query({name: [{"a": 1}]})
    compile_query({"a": {"$regex": "x", "$options": "i"}})


@unhurried
@given(fields, conditions, conditions, records)
def test_nor_is_the_opposite_of_or(name: str, one: Any, other: Any, record: dict[str, Any]) -> None:
    parts = [{name: one}, {name: other}]
    assert matches({"$nor": parts}, record) is not matches({"$or": parts}, record)


@unhurried
@given(fields, st.lists(values, max_size=4), records)
def test_nin_is_the_opposite_of_in(name: str, items: list[Any], record: dict[str, Any]) -> None:
    assert matches({name: {"$nin": items}}, record) is not matches({name: {"$in": items}}, record)


@unhurried
@given(fields, values, records)
def test_in_of_one_is_equality_and_ne_its_opposite(
    name: str, value: Any, record: dict[str, Any]
) -> None:
    equal = matches({name: {"$eq": value}}, record)
    assert matches({name: {"$in": [value]}}, record) is equal
    assert matches({name: {"$ne": value}}, record) is not equal


@unhurried
@given(fields, conditions, records)
def test_a_double_negation_changes_nothing(
    name: str, condition: Any, record: dict[str, Any]
) -> None:
    twice = {name: {"$not": {"$not": condition}}}
    assert matches(twice, record) is matches({name: condition}, record)


@unhurried
@given(fields, st.lists(conditions, min_size=1, max_size=3), records)
def test_and_is_every_part_and_or_is_any(
    name: str, parts: list[Any], record: dict[str, Any]
) -> None:
    each = [matches({name: part}, record) for part in parts]
    queries = [{name: part} for part in parts]
    assert matches({"$and": queries}, record) is all(each)
    assert matches({"$or": queries}, record) is any(each)


@unhurried
@given(fields, values, records)
def test_gte_is_gt_or_equality(name: str, value: Any, record: dict[str, Any]) -> None:
    if isinstance(value, list | dict) or value is None:
        return
    gte = matches({name: {"$gte": value}}, record)
    either = {"$or": [{name: {"$gt": value}}, {name: {"$eq": value}}]}
    assert gte is matches(either, record)

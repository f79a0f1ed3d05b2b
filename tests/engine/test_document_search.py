"""The action `search`, line by line of the format's section 10.3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machina.store.vectors import Embedding
from tests.builders import compute
from tests.engine.documenting import Desk, document


async def names(desk: Desk, task: Any, **payload: Any) -> list[Any]:
    return [row["value"] for row in await desk.do(task, **payload)]


async def numbers(desk: Desk, *values: Any, name: str = "n") -> None:
    for value in values:
        await desk.put(name, value)


# What a search gives


async def test_a_document_comes_with_its_id_as_text_and_nothing_of_ours(desk: Desk) -> None:
    record = await desk.store.documents.insert(
        "default",
        {"name": "n", "value": {"a": 1}, "metadata": {"k": "v"}, "title": "T"},
        embedding=Embedding.of("scripted", [1.0]),
    )
    [found] = await desk.do(document("search", filters={"name": "'n'"}))
    assert found["_id"] == record["_id"]
    assert [*found] == ["name", "value", "metadata", "title", "_id", "created", "updated"]


async def test_an_empty_result_is_a_success(desk: Desk) -> None:
    assert await desk.do(document("search", filters={"name": "'none'"})) == []


async def test_documents_of_another_project_are_not_seen(desk: Desk) -> None:
    await desk.store.documents.insert("other", {"name": "n", "value": 1})
    assert await desk.search({"name": "'n'"}) == []
    assert await desk.search({"project": "'other'"}) == []
    assert await desk.search({"$or": [{"project": "'other'"}, {"name": "'n'"}]}) == []


async def test_dates_are_datetimes_without_a_zone_in_expressions(desk: Desk) -> None:
    moment = datetime(2026, 1, 3, 4, 5, tzinfo=UTC)
    await desk.put("n", {"at": moment, "all": [moment]})
    outputs = {
        "found": "[d.get('value').get('at') == datetime(2026, 1, 3, 4, 5)"
        " and d.get('value').get('all')[0].isoformat() == '2026-01-03T04:05:00'"
        " and (datetime.utcnow() - d.get('created')).total_seconds() < 60"
        " for d in $.get('documents')]"
    }
    assert await desk.do(document("search", filters={"name": "'n'"}, outputs=outputs)) == [True]


async def test_outputs_fall_back_to_the_state_for_other_keys(desk: Desk) -> None:
    task = document("search", filters={"name": "'n'"}, outputs={"found": "$.get('force')"})
    assert await desk.do(task, force=True, documents="old") is True
    task = document("search", filters={"name": "'n'"}, outputs={"found": "$.get('documents')"})
    assert await desk.do(task, documents="old") == []


# Filters


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": "'a'"}, [1]),
        ({"name": "a"}, [1]),
        ({"value": "$.get('two')"}, [2]),
        ({"value": "{'$in': [1, 2]}"}, [1, 2]),
        ({"value": "{'$in': $.(numbers)}"}, [1, 2]),
        ({"value": "{'$ne': 1}"}, [2, 3]),
        ({"value": "{'$lt': 2}"}, [1]),
        ({"value": "{'$lte': 2, '$gt': 1}"}, [2]),
        ({"value": "{'$gte': 3}"}, [3]),
        ({"value": "{'$nin': [1, 2]}"}, [3]),
        ({"value": "{'$eq': 2}"}, [2]),
        ({"metadata.kind": "{'$exists': True}"}, [1, 2]),
        ({"metadata.kind": '{"$exists" : False}'}, [3]),
        ({"name": {"$regex": "^a"}}, [1]),
        ({"name": {"$regex": "'^A'", "$options": "i"}}, [1]),
        ({"name": "{'$regex': f\"^{$.get('prefix')}\"}"}, [2]),
        ({"$or": "[{'name': 'a'}, {'value': {'$gt': 2}}]"}, [1, 3]),
        ({"$or": [{"name": "'a'"}, {"value": {"$gt": "$.get('two')"}}]}, [1, 3]),
        ({"name": "'b'", "$or": "[{'value': 1}, {'value': 2}]"}, [2]),
        ({"value": {"$not": "{'$gt': 1}"}}, [1]),
        ({"value": {"$not": {"$gt": 1}}}, [1]),
        ({"metadata": {"kind": "'x'"}}, [1, 2]),
        ({"metadata": "{'kind': 'x', 'size': $.get('two')}"}, [2]),
        ({"metadata": {"kind": "{'$in': ['x', 'y']}", "size": "None"}}, [1, 2]),
        ({"metadata": "{}"}, [1, 2, 3]),
        ({"metadata": "{'$exists': True}"}, [1, 2]),
        ("{'name': 'a'}", [1]),
        ("{'value': {'$gt': 2}}", [3]),
        (None, [1, 2, 3]),
        ({}, [1, 2, 3]),
        ("None", [1, 2, 3]),
    ],
)
async def test_filters_are_expressions_that_give_values_or_operators(
    desk: Desk, filters: Any, found: list[int]
) -> None:
    await desk.put("a", 1, metadata={"kind": "x"})
    await desk.put("b", 2, metadata={"kind": "x", "size": 2})
    await desk.put("c", 3)
    assert await desk.search(filters, two=2, numbers=[1, 2], prefix="b") == found


async def test_paths_reach_through_odd_keys_and_lists(desk: Desk) -> None:
    await desk.put("e", {"sport:competition": {"@id": "urn:1"}, "tags": [{"n": 1}, {"n": 2}]})
    for filters in (
        {"value.sport:competition.@id": "'urn:1'"},
        {"value.tags.n": "2"},
        {"value.tags": "{'$elemMatch': {'n': {'$gt': 1}}}"},
        {"value.tags": "{'$elemMatch': {'$exists': True}}"},
        {"value.tags": {"$size": 2}},
        {"value.tags.n": "{'$all': [1, 2]}"},
        {"value.tags": "{'$all': [{'$elemMatch': {'n': 1}}]}"},
    ):
        assert len(await desk.search(filters)) == 1, filters


@pytest.mark.parametrize("key", ["document_id", "_id"])
async def test_an_id_is_text_and_may_stand_inside_operators(desk: Desk, key: str) -> None:
    one, two = await desk.put("n", 1), await desk.put("n", 2)
    ids = {"one": one["_id"], "two": two["_id"]}
    for filters, found in (
        ({key: "$.get('one')"}, [1]),
        ({key: "{'$in': [$.get('one'), $.get('two'), None]}"}, [1, 2]),
        ({key: {"$in": "[$.get('two')]"}}, [2]),
        ({key: "{'$ne': $.get('one')}"}, [2]),
        ({key: "{'$nin': [$.get('one')]}"}, [2]),
        ({key: "{'$eq': $.get('one')}", "name": "'n'"}, [1]),
        ({key: "{'$ne': None}"}, [1, 2]),
        ({"$or": "[{'" + key + "': $.get('one')}, {'value': 2}]"}, [1, 2]),
    ):
        assert await desk.search(filters, **ids) == found, filters


@pytest.mark.parametrize("key", ["document_id", "_id"])
@pytest.mark.parametrize(
    "value", ["None", "$.get('absent')", "{'$in': None}", "{'$eq': None}", "{'$in': []}"]
)
async def test_a_null_id_matches_nothing(desk: Desk, key: str, value: str) -> None:
    await numbers(desk, 1)
    assert await desk.search({key: value, "name": "'n'"}) == []
    assert await desk.do(document("search", inputs={key: "None"})) == []


async def test_an_id_of_digits_alone_is_an_id(desk: Desk) -> None:
    await desk.store.documents.insert("default", {"name": "n", "value": 1}, id="1" * 24)
    assert await desk.search({"document_id": "1" * 24}) == [1]
    assert await desk.search({"document_id": {"$in": ["1" * 24]}}) == [1]


@pytest.mark.parametrize(
    "filters",
    [
        {"value": "None"},
        {"value": "$.get('absent')"},
        {"value": "{'$gt': None}"},
        {"value": "{'$gt': None, '$lt': None}"},
        {"value": {"$gt": "$.get('absent')", "$lte": "2"}},
        {"name": {"$regex": "None", "$options": "i"}},
        {"$or": "None"},
        {"$or": "[]"},
        {"$or": "[{'value': None}]"},
        {"$or": "[None, {'value': None}]"},
        {"metadata": "None"},
        {"metadata": {"k": "None"}},
        {"value": "{'$not': {'$gt': None}}"},
    ],
)
async def test_a_null_filter_is_left_out_and_so_is_a_null_operand(desk: Desk, filters: Any) -> None:
    await numbers(desk, 1, 2)
    assert await desk.search(filters) == [1, 2]


async def test_an_alternative_of_which_nothing_is_left_is_none(desk: Desk) -> None:
    await numbers(desk, 1, 2)
    assert await desk.search({"$or": "[{'value': $.get('absent')}, {'value': 2}]"}) == [2]


async def test_dates_are_compared_as_datetimes_and_as_text(desk: Desk) -> None:
    await desk.put("n", {"at": datetime(2026, 1, 3, tzinfo=UTC)})
    for filters in (
        {"updated": "{'$gte': datetime.utcnow() - timedelta(hours=1)}"},
        {"created": "{'$lte': (datetime.utcnow() + timedelta(hours=1)).isoformat()}"},
        {"created": {"$gt": "'2020-01-01T00:00:00Z'"}},
        {"value.at": "{'$lt': datetime(2026, 1, 4)}"},
        {"value.at": "datetime(2026, 1, 3)"},
        {"$or": "[{'updated': {'$gt': '2020-01-01'}}]"},
    ):
        assert len(await desk.search(filters)) == 1, filters
    assert await desk.search({"updated": "{'$lt': datetime.utcnow() - timedelta(hours=1)}"}) == []


async def test_a_date_that_was_found_can_be_asked_for_again(desk: Desk) -> None:
    await numbers(desk, 1)
    first = document(
        "search",
        filters={"name": "'n'"},
        outputs={"since": "$.get('documents')[0].get('updated')"},
    )
    second = document("search", filters={"updated": "{'$gte': $.get('since')}"})
    result = await desk.execute(first, second)
    assert len(result.state["found"]) == 1


# Inputs as filters


async def test_inputs_are_filters_over_the_filters(desk: Desk) -> None:
    await numbers(desk, 1, 2, name="a")
    await numbers(desk, 1, name="b")
    assert await names(desk, document("search", inputs={"name": "'b'"})) == [1]
    task = document("search", inputs={"name": "'a'"}, filters={"name": "'b'", "value": "1"})
    [found] = await desk.do(task)
    assert found["name"] == "a"


async def test_a_null_input_takes_no_filter_away(desk: Desk) -> None:
    await numbers(desk, 1, name="a")
    await numbers(desk, 2, name="b")
    task = document("search", inputs={"name": "$.get('absent')"}, filters={"name": "'b'"})
    assert await names(desk, task) == [2]


async def test_an_input_may_be_an_operator_of_the_template(desk: Desk) -> None:
    await numbers(desk, 1, name="a")
    await numbers(desk, 2, name="b")
    await numbers(desk, 3, name="c")
    wanted: Any
    for wanted in ("{'$in': ['a', 'b']}", {"$in": ["'a'", "'b'"]}, "{'$in': $.get('list')}"):
        task = document("search", inputs={"name": wanted}, config={"search-sorters": ["value", 1]})
        assert await names(desk, task, list=["a", "b"]) == [1, 2], wanted


async def test_a_filter_may_take_an_operator_from_an_input_of_the_same_task(desk: Desk) -> None:
    await numbers(desk, 1)
    inputs = {"name": "'n'", "updated": "{'$gt': datetime.utcnow() - timedelta(hours=1)}"}
    assert await names(desk, document("search", inputs=inputs)) == [1]
    task = document("search", inputs={"name": "{'$in': ['n']}"}, filters={"name": "$.get('name')"})
    assert await names(desk, task) == [1]


async def test_a_broken_input_is_no_filter(desk: Desk) -> None:
    await numbers(desk, 1)
    task = document("search", inputs={"value": "{'$in': len(None)}", "name": "'n'"})
    assert await names(desk, task) == [1]


# Limits and order


@pytest.mark.parametrize(
    ("config", "inputs", "count"),
    [
        ({}, {}, 10),
        ({"search-limit": 3}, {}, 3),
        ({"search-limit": "3"}, {}, 3),
        ({"search-limit": "'3'"}, {}, 3),
        ({"search-limit": "$.get('three') + 1"}, {}, 4),
        ({"search-limit": 3}, {"search-limit": "5"}, 5),
        ({"search-limit": 3}, {"search-limit": "'5'"}, 5),
        ({"search-limit": 3}, {"search-limit": "None"}, 3),
        ({"search-limit": None}, {}, 10),
        ({"search-limit": 10_000}, {}, 12),
        ({"search-limit": 50_000}, {}, 12),
        ({"search-limit": 0}, {}, 12),
        ({}, {"search-query": "'text'", "threshold-docs": "1"}, 10),
    ],
)
async def test_the_limit_comes_from_inputs_then_config_then_is_ten(
    desk: Desk, config: Any, inputs: Any, count: int
) -> None:
    await numbers(desk, *range(12))
    task = document("search", config=config, inputs={"name": "'n'", **inputs})
    assert len(await desk.do(task, three=3)) == count


@pytest.mark.parametrize("limit", ["many", "True", "[1]", "float('inf')"])
async def test_a_limit_that_is_no_number_fails_the_task(desk: Desk, limit: str) -> None:
    message = await desk.fail(document("search", config={"search-limit": limit}))
    assert message.startswith("task_failed: 'search-limit' of task 'work'")


@pytest.mark.parametrize(
    ("sorters", "order"),
    [
        (None, ["d", "c", "b", "a"]),
        ([], ["d", "c", "b", "a"]),
        (["value.n", 1], ["a", "b", "d", "c"]),
        (["value.m", 1], ["b", "d", "a", "c"]),
        (["value.n", "-1"], ["c", "d", "b", "a"]),
        (["value.m", 1, "value.n", -1], ["d", "b", "c", "a"]),
        ([["value.m", 1], ["value.n", -1]], ["d", "b", "c", "a"]),
        ([["value.m", -1]], ["c", "a", "d", "b"]),
        ("['value.n', 1]", ["a", "b", "d", "c"]),
        ("value.n", ["a", "b", "d", "c"]),
        (["value.n"], ["a", "b", "d", "c"]),
        ({"value.m": 1, "value.n": "-1"}, ["d", "b", "c", "a"]),
        (["value.n", "desc"], ["c", "d", "b", "a"]),
        (["value.n", "'DESC'"], ["c", "d", "b", "a"]),
        (["value.m", "value.n"], ["b", "d", "a", "c"]),
        ("[$.get('field'), -1]", ["c", "d", "b", "a"]),
        (["_id", 1], ["a", "b", "c", "d"]),
        (["document_id", 1], ["a", "b", "c", "d"]),
    ],
)
async def test_sorters_in_all_written_forms(desk: Desk, sorters: Any, order: list[str]) -> None:
    for n, m, id in ((1, 2, "a"), (2, 1, "b"), (4, 2, "c"), (3, 1, "d")):
        await desk.put("s", {"n": n, "m": m, "id": id})
    for task in (
        document("search", config={"search-sorters": sorters}),
        document("search", sorters=sorters),
    ):
        found = [row["value"]["id"] for row in await desk.do(task, field="value.n")]
        assert found == order


@pytest.mark.parametrize("sorters", [7, [1, "a"], ["a", 2], ["a", True], [None], ["$where", 1]])
async def test_sorters_that_are_none_fail_the_task(desk: Desk, sorters: Any) -> None:
    assert "sort" in (await desk.fail(document("search", config={"search-sorters": sorters})))


# What is refused


@pytest.mark.parametrize(
    "name",
    [
        *("$where", "$expr", "$function", "$accumulator", "$lookup", "$out", "$merge"),
        *("$jsonSchema", "$text", "$mod", "$type"),
    ],
)
async def test_other_operators_are_refused_by_name(desk: Desk, name: str) -> None:
    for filters in (
        {name: "'1'"},
        {"value": {name: "1"}},
        {"value": f"{{'{name}': 1}}"},
        f"{{'{name}': 'x'}}",
        {"$or": f"[{{'a': {{'$not': {{'{name}': 1}}}}}}]"},
    ):
        message = await desk.fail(document("search", filters=filters))
        assert message.startswith("task_failed: "), filters
        assert name in message, filters


@pytest.mark.parametrize("filters", ["[1]", "'text'", 7, {"$or": "7"}, {"$or": "['a']"}])
async def test_filters_of_another_shape_fail_the_task(desk: Desk, filters: Any) -> None:
    assert "filters of task 'work'" in await desk.fail(document("search", filters=filters))


async def test_a_filter_that_raises_fails_the_task_and_shows_what_was_written(desk: Desk) -> None:
    message = await desk.fail(document("search", filters={"value": "{'$in': len(None)}"}))
    assert message.startswith("expression_error: Expression `{'$in': len(None)}` in task 'work'")


async def test_a_greedy_filter_fails_the_task(desk: Desk) -> None:
    task = document("search", filters={"value": "{'$in': ['x' * 1000000000]}"})
    assert (await desk.fail(task)).startswith("sandbox_limit: ")


async def test_too_long_a_list_fails_the_task(desk: Desk) -> None:
    task = document("search", filters={"value": "{'$in': [*range(20000)]}"})
    assert "at most 10000" in await desk.fail(task)


async def test_a_pattern_that_would_backtrack_is_searched_in_time(desk: Desk) -> None:
    await desk.put("n", "a" * 20_000 + "!")
    started = datetime.now(UTC)
    assert await desk.search({"value": {"$regex": "'(a+)+$'"}}) == []
    assert datetime.now(UTC) - started < timedelta(seconds=3)
    assert "256" in await desk.fail(document("search", filters={"value": {"$regex": "x" * 300}}))


@pytest.mark.parametrize("action", ["delete", "drop", None, "", 7, "'remove'"])
async def test_other_actions_are_not_available_to_templates(desk: Desk, action: Any) -> None:
    await numbers(desk, 1)
    message = await desk.fail(document(action, filters={"name": "'n'"}))
    assert "not available to templates; use one of search, update, save" in message
    assert len(await desk.stored()) == 1


@pytest.mark.parametrize("action", ["search", "'search'", "$.get('do')", " search "])
async def test_an_action_may_be_computed(desk: Desk, action: str) -> None:
    await numbers(desk, 1)
    assert len(await desk.do(document(action), do="search")) == 1


async def test_a_config_of_another_shape_is_named(desk: Desk) -> None:
    task = {"type": "document", "name": "work", "config": ["search"]}
    assert "'config' of task 'work'" in await desk.fail(task)


async def test_a_result_too_large_for_a_run_fails_the_task(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machina.worker.documents.MAX_RESULT_BYTES", 1_000)
    await numbers(desk, *(["x" * 90] * 11))
    assert len(await desk.do(document("search", config={"search-limit": 3}))) == 3
    assert "set a smaller 'search-limit'" in await desk.fail(
        document("search", config={"search-limit": 20})
    )


async def test_many_documents_are_found_at_once(desk: Desk) -> None:
    await numbers(desk, *range(60))
    task = document(
        "search", config={"search-limit": 100}, outputs={"found": "len($.get('documents'))"}
    )
    assert await desk.do(task) == 60


async def test_a_later_task_sees_what_an_earlier_one_wrote(desk: Desk) -> None:
    result = await desk.execute(
        compute(outputs={"x": "5"}),
        document("save", documents={"n": "{'x': $.get('x')}"}),
        document("search", filters={"value.x": "$.get('x')"}),
    )
    assert [row["value"] for row in result.state["found"]] == [{"x": 5}]

"""The actions `bulk-save` and `bulk-update`, line by line of the format's section 10.4."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.documenting import Desk, document

BULK = pytest.mark.parametrize("action", ["bulk-save", "bulk-update"])
COUNTS = pytest.mark.parametrize("more", [0, 20], ids=["few", "many"])
"""Few upserts are done one by one, many together; both mean the same."""


def bulk(action: str, items: Any = "$.get('items')", **fields: Any) -> dict[str, Any]:
    return document(action, documents={"items": items}, **{"document_name": "'n'", **fields})


def fillers(more: int) -> list[dict[str, Any]]:
    return [{"filler": n, "metadata": {"filler": n}} for n in range(more)]


@BULK
async def test_each_item_becomes_a_document(desk: Desk, action: str) -> None:
    items = [
        {"title": "A", "metadata": {"k": 1}, "_id": "own", "name": "x", "n": 1},
        None,
        {"title": 7, "metadata": {"k": 2, "size": None}},
    ]
    found = await desk.do(bulk(action, metadata={"shop": "$.get('shop')", "k": "0"}), items=items,
                          shop="s")  # fmt: skip
    rows = await desk.stored()
    assert [row["_id"] for row in found] == [row["_id"] for row in rows]
    assert [row["name"] for row in rows] == ["n", "n"]
    assert [row["value"] for row in rows] == [items[0], items[2]]
    assert [row.get("title") for row in rows] == ["A", None]
    assert [row["metadata"] for row in rows] == [
        {"shop": "s", "k": 1},
        {"shop": "s", "k": 2, "size": None},
    ]
    assert rows[0]["_id"] != "own"


@BULK
@pytest.mark.parametrize("name", ["content-snippet", "'content-snippet'", "$.get('name')"])
async def test_the_name_may_be_bare_quoted_or_computed(desk: Desk, action: str, name: str) -> None:
    await desk.do(bulk(action, "[{'a': 1}]", document_name=name), name="content-snippet")
    assert len(await desk.stored("content-snippet")) == 1


@BULK
@pytest.mark.parametrize("items", [None, [], [None, None], "None", "$.get('absent')", "[]"])
async def test_no_items_are_a_successful_nothing(desk: Desk, action: str, items: Any) -> None:
    assert await desk.do(bulk(action, items)) == []
    assert await desk.do(bulk(action, items, document_name=None)) == []
    assert await desk.stored() == []


@BULK
async def test_no_documents_at_all_are_nothing_too(desk: Desk, action: str) -> None:
    assert await desk.do(document(action, document_name="n")) == []


@BULK
async def test_items_may_be_prepared_in_the_inputs(desk: Desk, action: str) -> None:
    inputs = {"rows": "[{'n': n} for n in $.get('list')]"}
    assert len(await desk.do(bulk(action, "$.get('rows')", inputs=inputs), list=[1, 2, 3])) == 3


@BULK
async def test_one_item_need_not_be_in_a_list_nor_be_a_dictionary(desk: Desk, action: str) -> None:
    await desk.do(bulk(action, "{'a': 1}"))
    await desk.do(bulk(action, "['text', 7]"))
    assert [row["value"] for row in await desk.stored()] == [{"a": 1}, "text", 7]


@BULK
async def test_another_key_than_items_names_the_documents(desk: Desk, action: str) -> None:
    await desk.do(document(action, documents={"orders": "[{'n': 1}]"}))
    await desk.do(document(action, documents={"orders": "[{'n': 2}]"}, document_name="'x'"))
    assert [row["name"] for row in await desk.stored()] == ["orders", "x"]


@BULK
@pytest.mark.parametrize("items", ["'text'", "7", "$.get('x')"])
async def test_items_that_are_no_list_fail_the_task(desk: Desk, action: str, items: str) -> None:
    assert "a bulk action needs a list" in await desk.fail(bulk(action, items), x="a")


@BULK
async def test_items_without_a_name_fail_the_task(desk: Desk, action: str) -> None:
    task = document(action, documents={"items": "[{'a': 1}]"})
    assert "set 'document_name'" in await desk.fail(task)
    task = document(action, documents={"items": "[{'a': 1}]"}, document_name="[1]")
    assert "a name is text" in await desk.fail(task)


@BULK
async def test_too_many_items_fail_the_task(desk: Desk, action: str) -> None:
    message = await desk.fail(bulk(action, "[1] * 10001"))
    assert message.startswith("sandbox_limit: ")
    assert "at most 10000" in message


@BULK
async def test_metadata_of_an_item_that_is_no_dictionary_stays_in_the_value(
    desk: Desk, action: str
) -> None:
    await desk.do(bulk(action, "[{'metadata': 'text', 'id': 1}]"))
    [row] = await desk.stored()
    assert (row["value"]["metadata"], row["metadata"]) == ("text", {})


async def test_bulk_save_always_inserts(desk: Desk) -> None:
    items = [{"_id": 1, "metadata": {"k": 1}}] * 2
    for _ in range(2):
        await desk.do(bulk("bulk-save"), items=items)
    assert len(await desk.stored()) == 4


@COUNTS
async def test_bulk_update_upserts_by_name_and_metadata(desk: Desk, more: int) -> None:
    wide = await desk.put("n", {"old": 1}, metadata={"k": 1, "more": True}, title="Old")
    other = await desk.put("other", {"old": 2}, metadata={"k": 2})
    items = [{"v": 1, "title": "New", "metadata": {"k": 1, "new": 5}}, *fillers(more)]
    await desk.store.documents.update("default", {"_id": wide["_id"]}, {"metadata.new": 5})
    await desk.do(bulk("bulk-update"), items=items)
    stored = await desk.store.documents.get("default", wide["_id"])
    assert stored is not None
    assert stored["value"] == items[0]
    assert stored["metadata"] == {"k": 1, "more": True, "new": 5}
    assert (stored["title"], stored["created"]) == ("New", wide["created"])
    assert await desk.store.documents.get("default", other["_id"]) == other
    await desk.do(bulk("bulk-update"), items=items)
    assert len(await desk.stored("n")) == 1 + more


@COUNTS
async def test_the_newest_of_several_matches_is_written(desk: Desk, more: int) -> None:
    old = await desk.put("n", 1, metadata={"k": 1})
    new = await desk.put("n", 2, metadata={"k": 1})
    [found, *_] = await desk.do(
        bulk("bulk-update"), items=[{"v": 3, "metadata": {"k": 1}}, *fillers(more)]
    )
    assert found["_id"] == new["_id"]
    assert await desk.store.documents.get("default", old["_id"]) == old


@COUNTS
async def test_items_without_metadata_match_by_their_own_id(desk: Desk, more: int) -> None:
    await desk.put("n", {"_id": "a", "v": 0})
    await desk.put("n", {"id": 7, "v": 0})
    items = [
        {"_id": "a", "id": 7, "v": 1},
        {"id": 7, "v": 2},
        {"_id": None, "id": 8, "v": 3},
        {"v": 4},
        *fillers(more),
    ]
    for _ in range(2):
        await desk.do(bulk("bulk-update"), items=items)
    values = [r["value"]["v"] for r in await desk.stored() if "v" in r["value"]]
    assert sorted(values) == [1, 2, 3, 4, 4]


@COUNTS
async def test_items_whose_metadata_is_only_the_tasks_are_told_apart_by_id(
    desk: Desk, more: int
) -> None:
    items = [{"id": n, "v": "$"} for n in range(3 + more)]
    for day in (1, 2, 1):
        await desk.do(bulk("bulk-update", metadata={"day": "$.get('day')"}), items=items, day=day)
    assert len(await desk.stored()) == 2 * (3 + more)


async def test_one_item_without_an_id_matches_by_the_metadata_of_the_task(desk: Desk) -> None:
    for n in (1, 2):
        task = bulk("bulk-update", "[{'n': $.get('n')}]", metadata={"day": "1"})
        await desk.do(task, n=n)
    [row] = await desk.stored()
    assert (row["value"], row["metadata"]) == ({"n": 2}, {"day": 1})


@COUNTS
async def test_a_later_item_writes_over_an_earlier_one_of_the_same_key(
    desk: Desk, more: int
) -> None:
    await desk.put("n", {"v": 0}, metadata={"k": "old"})
    items = [
        {"v": 1, "metadata": {"k": "old"}},
        {"v": 2, "metadata": {"k": "new"}},
        {"v": 3, "metadata": {"k": "old", "extra": None}},
        {"v": 4, "metadata": {"k": "new", "extra": None}},
        *fillers(more),
    ]
    found = await desk.do(bulk("bulk-update"), items=items)
    assert [row["value"]["v"] for row in found[:2]] == [3, 4]
    assert len(found) == 2 + more
    assert len(await desk.stored()) == 2 + more


@COUNTS
async def test_metadata_of_lists_objects_and_nothing_is_matched_as_by_a_query(
    desk: Desk, more: int
) -> None:
    await desk.put("n", {"v": 0}, metadata={"tags": ["a", "b"], "o": {"x": 1, "y": 2}})
    items = [
        {"v": 1, "metadata": {"tags": "a"}},
        {"v": 2, "metadata": {"o": {"y": 2, "x": 1}}},
        {"v": 3, "metadata": {"o": {"x": 1, "y": 2}, "absent": None}},
        *fillers(more),
    ]
    found = await desk.do(bulk("bulk-update"), items=items)
    values = sorted(row["value"]["v"] for row in found if "v" in row["value"])
    assert values == [2, 3]


async def test_many_documents_of_the_name_are_looked_through(desk: Desk) -> None:
    items = [{"id": n, "metadata": {"n": n}} for n in range(2_300)]
    await desk.do(bulk("bulk-save", outputs={"found": "1"}), items=items)
    await desk.do(bulk("bulk-update", outputs={"found": "1"}), items=items[::-1])
    task = bulk("bulk-update", outputs={"found": "len($.get('documents'))"})
    assert await desk.do(task, items=items[:50]) == 50
    assert len(await desk.stored("n")) == 2_300

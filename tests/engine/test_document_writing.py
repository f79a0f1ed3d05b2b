"""The actions `save` and `update`, line by line of the format's section 10.4."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from machina.engine.tasks.documents import writing
from machina.engine.tasks.documents.values import storable
from tests.engine.documenting import THREAD, Desk, document, make_run

# save


async def test_save_adds_a_document_for_each_key(desk: Desk) -> None:
    task = document(
        "save",
        documents={"order": "{'n': $.get('n') + 1}", "note": "'text'", "list": [1, "$.get('n')"]},
        metadata={"shop": "$.get('shop')", "kind": "'x'", "size": 3},
    )
    found = await desk.do(task, n=1, shop="s")
    assert [(row["name"], row["value"]) for row in found] == [
        ("order", {"n": 2}),
        ("note", "text"),
        ("list", [1, 1]),
    ]
    rows = await desk.stored()
    assert [row["_id"] for row in rows] == [row["_id"] for row in found]
    assert all(row["metadata"] == {"shop": "s", "kind": "x", "size": 3} for row in rows)
    await desk.do(task, n=1, shop="s")
    assert len(await desk.stored()) == 6


async def test_document_name_may_repeat_the_key(desk: Desk) -> None:
    for name in ("report", "'report'"):
        await desk.do(document("save", documents={"report": "1"}, document_name=name))
    assert len(await desk.stored("report")) == 2


async def test_save_takes_the_fields_from_inputs_when_there_are_no_documents(desk: Desk) -> None:
    inputs = {
        "name": "'voice'",
        "item_id": "$.get('id')",
        "value": {"text": "$.get('text')", "parts": ["$.get('id')"]},
        "metadata": {"lang": "'en'"},
    }
    [found] = await desk.do(document("save", inputs=inputs), id="i1", text="hello")
    assert found["value"] == {"text": "hello", "parts": ["i1"]}
    [row] = await desk.stored("voice")
    assert (row["item_id"], row["metadata"]) == ("i1", {"lang": "en"})


@pytest.mark.parametrize(
    "fields",
    [{}, {"documents": {}}, {"inputs": {"name": "'n'"}}, {"inputs": {"value": "1"}}],
)
@pytest.mark.parametrize("action", ["save", "update"])
async def test_nothing_to_write_fails_the_task(desk: Desk, action: str, fields: Any) -> None:
    assert "nothing to write" in await desk.fail(document(action, **fields))


async def test_a_computed_key_is_filled_in(desk: Desk) -> None:
    documents = {"{$.get('t')}-draft": "1", "$.get('t')": "2", "f\"{$.get('t')}!\"": "3"}
    await desk.do(document("save", documents=documents), t="post")
    assert [row["name"] for row in await desk.stored()] == ["post-draft", "post", "post!"]


async def test_an_expression_that_raises_fails_the_task_and_nothing_is_written(desk: Desk) -> None:
    for action in ("save", "update"):
        for fields in (
            {"documents": {"a": "1", "b": "len(None)"}},
            {"documents": {"a": "1"}, "metadata": {"k": "len(None)"}},
            {"documents": {"a": "1"}, "document_name": "len(None)"},
            {"documents": {"a": "1"}, "config": {"force-update": "len(None)"}},
        ):
            message = await desk.fail(document(action, **fields))
            assert message.startswith("expression_error"), fields
    assert await desk.stored() == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("datetime.utcnow().date()", "value is a date"),
        ("{'a': timedelta(days=1)}", "value.a is a timedelta"),
        ("{1: 2}", "has the key 1"),
        ("{'a': {None: 2}}", "value.a has the key None"),
        ("2 ** 70", "exceeds 64 bits"),
    ],
)
async def test_what_no_document_holds_fails_the_task(desk: Desk, value: str, problem: str) -> None:
    value = value.replace("2 ** 70", "1180591620717411303424")
    for action in ("save", "update"):
        message = await desk.fail(document(action, documents={"n": value}))
        assert message.startswith("task_failed")
        assert problem in message
    for action in ("bulk-save", "bulk-update"):
        task = document(action, document_name="n", documents={"items": f"[{value}]"})
        assert problem in await desk.fail(task)
    assert await desk.stored() == []


async def test_sets_are_lists_and_dates_stay_dates(desk: Desk) -> None:
    value = "{'s': set(['b', 'a']), 't': (1, 2), 'at': datetime(2026, 1, 3), 'x': None, 'f': 1.5}"
    await desk.do(document("save", documents={"n": value}))
    [row] = await desk.stored()
    assert row["value"] == {
        "s": ["a", "b"],
        "t": [1, 2],
        "at": datetime(2026, 1, 3, tzinfo=UTC),
        "x": None,
        "f": 1.5,
    }


async def test_a_document_may_be_large_and_deep_within_bounds(desk: Desk) -> None:
    deep: Any = 1
    for _ in range(120):
        deep = [deep]
    task = document("save", documents={"n": "$.get('x')"})
    assert "deeper than" in await desk.fail(task, x=deep)
    assert "more than 12000000 bytes" in await desk.fail(task, x=["y" * 1_000_000] * 13)
    await desk.do(document("save", documents={"n": "$.get('x')"}, outputs={"found": "1"}),
                  x=["y" * 100_000] * 5)  # fmt: skip


async def test_keys_of_data_are_kept_as_they_are(desk: Desk) -> None:
    value = {"$ref": "#/a", "a.b": 1, "sport:Event": {"@id": "u"}, "": 0}
    await desk.do(document("save", documents={"n": "$.get('x')"}), x=value)
    await desk.do(document("update", documents={"n": "$.get('x')"}), x=value)
    [row] = await desk.stored()
    assert row["value"] == value
    [found] = await desk.do(document("search", filters={"name": "'n'"}))
    assert found["value"] == value


@pytest.mark.parametrize("metadata", ["[1]", "'text'", 7])
async def test_metadata_of_another_shape_fails_the_task(desk: Desk, metadata: Any) -> None:
    task = document("save", documents={"n": "1"}, metadata=metadata)
    assert "metadata of task 'work'" in await desk.fail(task)


async def test_metadata_may_be_one_expression(desk: Desk) -> None:
    await desk.do(document("save", documents={"n": "1"}, metadata="{'k': $.get('k')}"), k=2)
    await desk.do(document("save", documents={"m": "1"}, metadata="$.get('absent')"))
    assert [row["metadata"] for row in await desk.stored()] == [{"k": 2}, {}]


# update by id


@pytest.mark.parametrize("key", ["document_id", "_id"])
async def test_an_update_by_id_replaces_the_value_and_merges_metadata(desk: Desk, key: str) -> None:
    old = await desk.put("thread", {"a": 1, "b": 2}, metadata={"k": 1, "m": 2}, title="T")
    other = await desk.put("thread", {"c": 1})
    task = document(
        "update",
        config={"force-update": True},
        filters={key: "$.get('id')"},
        documents={"thread": "{**$.get('old'), 'b': 3}"},
        metadata={"m": "3", "new": "'x'"},
    )
    [found] = await desk.do(task, id=old["_id"], old={"a": 1})
    assert found["_id"] == old["_id"]
    stored = await desk.store.documents.get("default", old["_id"])
    assert stored is not None
    assert stored["value"] == {"a": 1, "b": 3}
    assert stored["metadata"] == {"k": 1, "m": 3, "new": "x"}
    assert stored["title"] == "T"
    assert stored["created"] == old["created"]
    assert stored["updated"] >= old["updated"]
    assert await desk.store.documents.get("default", other["_id"]) == other


async def test_an_update_by_id_gives_the_document_the_name_of_the_key(desk: Desk) -> None:
    old = await desk.put("draft", 1)
    await desk.do(
        document("update", filters={"document_id": "$.get('id')"}, documents={"post": "2"}),
        id=old["_id"],
    )
    [row] = await desk.stored()
    assert (row["name"], row["value"]) == ("post", 2)


@pytest.mark.parametrize("id", ["e" * 24, None, "no id", {"$ne": None}])
async def test_an_update_by_an_id_that_is_not_there_writes_nothing(desk: Desk, id: Any) -> None:
    await desk.put("thread", 1)
    task = document("update", filters={"document_id": "$.get('id')"}, documents={"thread": "2"})
    assert await desk.do(task, id=id) == []
    [row] = await desk.stored()
    assert row["value"] == 1


async def test_an_update_by_id_stays_in_its_project(desk: Desk) -> None:
    foreign = await desk.store.documents.insert("other", {"name": "thread", "value": 1})
    task = document("update", filters={"_id": "$.get('id')"}, documents={"thread": "2"})
    assert await desk.do(task, id=foreign["_id"]) == []
    assert await desk.store.documents.get("other", foreign["_id"]) == foreign


async def test_a_document_without_metadata_can_be_given_some(desk: Desk) -> None:
    one = await desk.put("a", 1, metadata=None)
    two = await desk.put("a", 1)
    for row in (one, two):
        task = document(
            "update", filters={"_id": "$.get('id')"}, documents={"a": "2"}, metadata={"k": "1"}
        )
        [found] = await desk.do(task, id=row["_id"])
        assert found["metadata"] == {"k": 1}


# update by other filters


async def test_an_update_by_filters_takes_the_first_match_of_its_name(desk: Desk) -> None:
    await desk.put("other", {"id": 7})
    old = await desk.put("event", {"id": 7}, metadata={"k": 1})
    task = document(
        "update",
        filters={"value.id": "$.get('id')"},
        documents={"event": "{'id': $.get('id'), 'new': True}"},
        metadata={"m": "2"},
    )
    [found] = await desk.do(task, id=7)
    assert (found["_id"], found["metadata"]) == (old["_id"], {"k": 1, "m": 2})
    [inserted] = await desk.do(task, id=8)
    assert (inserted["name"], inserted["value"]) == ("event", {"id": 8, "new": True})
    assert inserted["metadata"] == {"m": 2}
    assert len(await desk.stored()) == 3


async def test_an_update_by_filters_with_operators_inserts_without_them(desk: Desk) -> None:
    task = document(
        "update",
        filters={"metadata.day": "{'$gte': 3}", "metadata": {"shop": "'s'"}, "name": "'x'"},
        documents={"x": "1"},
    )
    [found] = await desk.do(task)
    assert (found["name"], found["metadata"]) == ("x", {"shop": "s"})


async def test_filters_of_which_nothing_is_left_are_no_filters(desk: Desk) -> None:
    await desk.put("event", 1, metadata={"k": 1})
    task = document(
        "update",
        filters={"value.id": "$.get('absent')"},
        documents={"event": "2"},
        metadata={"k": "2"},
    )
    await desk.do(task)
    assert [row["value"] for row in await desk.stored()] == [1, 2]


# update by metadata or name


async def test_an_update_matches_name_and_every_metadata_entry(desk: Desk) -> None:
    wide = await desk.put("order", 1, metadata={"shop": "a", "day": 1, "more": True})
    await desk.put("order", 2, metadata={"shop": "b", "day": 1})
    await desk.put("cart", 3, metadata={"shop": "a", "day": 1})
    task = document(
        "update", documents={"order": "9"}, metadata={"shop": "$.get('shop')", "day": "1"}
    )
    [found] = await desk.do(task, shop="a")
    assert found["_id"] == wide["_id"]
    assert found["metadata"] == {"shop": "a", "day": 1, "more": True}
    [added] = await desk.do(task, shop="c")
    assert added["metadata"] == {"shop": "c", "day": 1}
    [again] = await desk.do(task, shop="c")
    assert again["_id"] == added["_id"]
    assert sorted(row["value"] for row in await desk.stored()) == [2, 3, 9, 9]


async def test_a_null_metadata_entry_matches_what_has_none(desk: Desk) -> None:
    task = document("update", documents={"o": "1"}, metadata={"k": "$.get('k')"})
    for _ in range(2):
        await desk.do(task)
    [row] = await desk.stored()
    assert row["metadata"] == {"k": None}


@pytest.mark.parametrize("key", ["a.b", "$k", ""])
async def test_metadata_that_cannot_be_matched_fails_an_update(desk: Desk, key: str) -> None:
    task = document("update", documents={"o": "1"}, metadata="{$.get('key'): 1}")
    assert "cannot be found by" in await desk.fail(task, key=key)


async def test_an_update_without_filters_and_metadata_matches_by_name(desk: Desk) -> None:
    task = document("update", documents={"setup": "{'n': $.get('n')}", "menu": "['a']"})
    for n in (1, 2):
        assert len(await desk.do(task, n=n)) == 2
    rows = {row["name"]: row["value"] for row in await desk.stored()}
    assert rows == {"setup": {"n": 2}, "menu": ["a"]}
    assert len(await desk.stored()) == 2
    assert all(row["metadata"] == {} for row in await desk.stored())


@pytest.mark.parametrize("force", [True, False, "true", "'false'", "$.get('absent')", None])
async def test_force_update_changes_nothing_about_what_is_written(desk: Desk, force: Any) -> None:
    task = document("update", config={"force-update": force}, documents={"a": "2"})
    await desk.put("a", 1)
    await desk.do(task)
    assert [row["value"] for row in await desk.stored()] == [2]


async def test_documents_of_another_shape_fail_the_task(desk: Desk) -> None:
    assert "documents of task 'work'" in await desk.fail(document("save", documents="[1]"))
    assert "a name is text" in await desk.fail(
        document("save", documents={"a": "1"}, document_name="7")
    )


# The thread of a run


async def test_the_first_thread_that_a_run_inserts_takes_the_reserved_id(desk: Desk) -> None:
    save = document("save", documents={"note": "0", "thread": "{'n': 1}"})
    found = await desk.do(save)
    assert found[1]["_id"] == THREAD
    assert found[0]["_id"] != THREAD
    [second] = await desk.do(document("save", documents={"thread": "{'n': 2}"}))
    assert second["_id"] != THREAD
    assert len(await desk.stored("thread")) == 2


async def test_an_update_or_bulk_action_that_inserts_the_thread_takes_the_id_too(
    desk: Desk,
) -> None:
    await desk.put("thread", 0, metadata={"k": 1})
    old = document("update", documents={"thread": "1"}, metadata={"k": "1"})
    new = document("update", documents={"thread": "1"}, metadata={"k": "2"})
    assert (await desk.do(old))[0]["_id"] != THREAD
    assert (await desk.do(new))[0]["_id"] == THREAD
    for number, action in enumerate(("bulk-save", "bulk-update")):
        run = make_run(thread_id=str(number) * 24)
        task = document(action, document_name="thread", documents={"items": "[{'a': 1}, {'a': 2}]"})
        found = await Desk(desk.store, run).do(task)
        assert [row["_id"] == run.thread_id for row in found] == [True, False]


async def test_a_run_whose_thread_is_known_reserves_nothing(desk: Desk) -> None:
    known = Desk(desk.store, make_run(thread_reserved=False))
    [found] = await known.do(document("save", documents={"thread": "1"}))
    assert found["_id"] != THREAD


@pytest.mark.parametrize("action", ["save", "update"])
async def test_a_new_attempt_writes_over_the_thread_of_the_one_before(
    desk: Desk, action: str
) -> None:
    for attempt in (1, 2):
        run = make_run()  # as the record has it when nothing was checkpointed
        task = document(action, documents={"thread": "$.get('n')"}, metadata={"n": "$.get('n')"})
        [found] = await Desk(desk.store, run).do(task, n=attempt)
        assert found["_id"] == THREAD
        assert run.thread_reserved is False
    [row] = await desk.stored("thread")
    assert row["value"] == 2
    assert row["metadata"]["n"] == 2


async def test_a_thread_that_could_not_be_written_leaves_the_id_reserved(desk: Desk) -> None:
    await desk.fail(document("save", documents={"thread": "1180591620717411303424"}))
    assert desk.run.thread_reserved is True
    [found] = await desk.do(document("save", documents={"thread": "1"}))
    assert found["_id"] == THREAD


async def test_an_id_taken_in_another_project_fails_the_task(desk: Desk) -> None:
    await desk.store.documents.insert("other", {"name": "thread"}, id=THREAD)
    assert "task_failed" in await desk.fail(document("save", documents={"thread": "1"}))


@pytest.mark.parametrize(("size", "leaves"), [(10, False), (5_000, True)])
async def test_a_large_document_does_not_hold_up_other_runs(
    size: int, leaves: bool, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def noted(value: Any, where: str) -> Any:
        threads.add(threading.get_ident())
        return storable(value, where)

    monkeypatch.setattr(writing, "storable", noted)
    await desk.execute(document("save", documents={"big": f"[n for n in range({size})]"}))
    assert (threads != {threading.get_ident()}) is leaves

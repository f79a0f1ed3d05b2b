"""Definitions over HTTP: the envelopes, bodies and rows that each client sends and reads."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from machina.auth import Scope
from machina.runs.run import Outcome, RunStatus
from tests.api.harness import HELLO, Api, assert_problem, busy_worker

KINDS = ("agent", "workflow", "prompt", "connector", "mapping")
MAIL_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
ODD_NAMES = ("sport:Event", "xAI Grok", "a.b", "größe", "50% off?", "x&y=z#1", "a+b")
UNKNOWN_ID = "f" * 24


async def create(calls: httpx.AsyncClient, kind: str, name: str, **body: Any) -> str:
    """Adds a definition as a client does; returns the id that the answer names."""
    answer = await calls.post(f"/{kind}", json={"name": name, **body})
    assert answer.status_code in (200, 201), answer.text
    data = answer.json()["data"]
    return str(data.get("_id") or data["id"])


async def names_found(calls: httpx.AsyncClient, kind: str, body: dict[str, Any]) -> list[str]:
    answer = await calls.post(f"/{kind}/search", json=body)
    assert answer.status_code == 200, answer.text
    return [row["name"] for row in answer.json()["data"]]


@pytest.mark.parametrize(
    ("kind", "status", "rest"),
    [
        ("agent", 200, {"meta": {"code": 200}, "status": "success"}),
        ("workflow", 201, {"message": "workflow saved", "status": True}),
        ("prompt", 200, {"message": "prompt saved", "status": True}),
        ("connector", 200, {"message": "connector saved", "status": True}),
        ("mapping", 200, {"message": "mapping saved", "status": True}),
    ],
)
async def test_a_creation_is_answered_as_clients_of_the_kind_read_it(
    admin: httpx.AsyncClient, kind: str, status: int, rest: dict[str, Any]
) -> None:
    answer = await admin.post(f"/{kind}", json={"name": "new", "title": "New"})
    body = answer.json()
    data = body.pop("data")
    assert answer.status_code == status
    assert body == rest
    assert re.fullmatch("[0-9a-f]{24}", data["id"])
    assert data["_id"] == data["id"]


async def test_each_kind_has_its_own_answer_to_a_change(admin: httpx.AsyncClient) -> None:
    answers = {}
    for kind in KINDS:
        id = await create(admin, kind, "x", title="T", status="active")
        answers[kind] = (await admin.put(f"/{kind}/{id}", json={"description": "D"})).json()
    assert answers["agent"] == {"message": "agent updated", "status": True}
    workflow = answers["workflow"]
    assert set(workflow) == {"data", "message", "status"}
    assert set(workflow["data"]) == {"_id", "name", "title", "description", "status", "updated"}
    assert workflow["data"]["description"] == "D"
    for kind in ("prompt", "connector", "mapping"):
        assert answers[kind]["status"] is True
        assert answers[kind]["message"] == f"{kind} updated"
        assert answers[kind]["data"]["title"] == "T"
        assert answers[kind]["data"]["description"] == "D"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_definition_is_found_by_id_and_by_name_and_deleted(
    admin: httpx.AsyncClient, kind: str
) -> None:
    id = await create(admin, kind, "x", title="T")
    for path in (id, "x", f"id/{id}", "name/x"):
        body = (await admin.get(f"/{kind}/{path}")).json()
        assert body["status"] is True
        assert body["data"]["_id"] == body["data"]["id"] == id
        assert body["data"]["title"] == "T"
        assert "project" not in body["data"]
        for field in ("created", "updated", "date"):
            assert MAIL_DATE.fullmatch(body["data"][field]), field
    gone = await admin.delete(f"/{kind}/{id}")
    assert gone.json() == {
        "data": {"_id": id, "id": id, "name": "x"},
        "message": f"{kind} deleted",
        "status": True,
    }
    for method in ("GET", "DELETE"):
        assert_problem(await admin.request(method, f"/{kind}/{id}"), 404, "not_found")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_there_is_404(admin: httpx.AsyncClient, kind: str) -> None:
    id = await create(admin, kind, "x")
    for method, path in (
        ("GET", "nobody"),
        ("GET", UNKNOWN_ID),
        ("GET", "id/x"),
        ("GET", f"id/{UNKNOWN_ID}"),
        ("GET", f"name/{id}"),
        ("GET", "name/nobody"),
        ("GET", "search"),
        ("GET", "..%2F..%2Fetc"),
        ("PUT", "nobody"),
        ("DELETE", UNKNOWN_ID),
    ):
        answer = await admin.request(method, f"/{kind}/{path}", json={})
        assert_problem(answer, 404, "not_found")


async def test_names_of_the_real_world_are_usable_in_paths(admin: httpx.AsyncClient) -> None:
    for name in ODD_NAMES:
        id = await create(admin, "connector", name)
        path = f"/connector/{quote(name, safe='')}"
        assert (await admin.get(path)).json()["data"]["_id"] == id
        changed = await admin.put(path, json={"description": "D"})
        assert changed.json()["data"]["description"] == "D"
        assert await names_found(admin, "connector", {"filters": {"name": name}}) == [name]
        assert (await admin.delete(path)).status_code == 200


async def test_what_is_no_name_is_refused(admin: httpx.AsyncClient) -> None:
    for name in (None, "", "  ", 7, ["x"], {"$ne": None}, "a/b", "a\nb", "x" * 201):
        for kind in KINDS:
            answer = await admin.post(f"/{kind}", json={"name": name})
            body = assert_problem(answer, 422, "invalid_request")
            assert body["error"]["field"] == "name"


async def test_words_of_the_paths_are_no_names(admin: httpx.AsyncClient) -> None:
    id = await create(admin, "agent", "x")
    for name in ("search", "id", "executor", "execute", "schedule", "stream"):
        assert_problem(await admin.post("/agent", json={"name": name}), 422, "invalid_request")
        for body in ({"name": name}, {"data": {"name": name}}):
            answer = await admin.put(f"/agent/{id}", json=body)
            assert_problem(answer, 422, "invalid_request")


async def test_a_name_that_is_taken_is_refused_and_not_overwritten(
    admin: httpx.AsyncClient,
) -> None:
    for kind in KINDS:
        first = await create(admin, kind, "x", title="first")
        other = await create(admin, kind, "y")
        again = await admin.post(f"/{kind}", json={"name": "x", "title": "second"})
        assert_problem(again, 409, "duplicate")
        renamed = await admin.put(f"/{kind}/{other}", json={"name": "x"})
        assert_problem(renamed, 409, "duplicate")
        assert (await admin.get(f"/{kind}/{first}")).json()["data"]["title"] == "first"


async def test_the_routine_of_the_loop_kit_replaces_by_get_delete_post(
    admin: httpx.AsyncClient,
) -> None:
    for source in ("print(1)", "print(2)"):
        known = await admin.get("/connector/tool")
        if known.status_code == 200 and known.json()["data"]:
            deleted = await admin.delete(f"/connector/{known.json()['data']['_id']}")
            assert deleted.json()["status"] in (True, "success")
        connector = {"name": "tool", "filename": "tool.py", "filetype": "pyscript"}
        created = await admin.post("/connector", json=connector | {"filecontent": source})
        assert created.json()["status"] in (True, "success")
    assert (await admin.get("/connector/tool")).json()["data"]["filecontent"] == "print(2)"


async def test_a_flat_change_merges_and_one_under_data_replaces(admin: httpx.AsyncClient) -> None:
    tasks = [{"name": "t", "type": "expression"}]
    id = await create(admin, "workflow", "x", title="T", tasks=tasks, inputs={"a": 1})
    await admin.put(f"/workflow/{id}", json={"inputs": {"b": 2}})
    merged = (await admin.get("/workflow/x")).json()["data"]
    assert (merged["inputs"], merged["tasks"], merged["title"]) == ({"b": 2}, tasks, "T")
    await admin.put("/workflow/x", json={"_id": id, "data": {"inputs": {"c": 3}}})
    replaced = (await admin.get(f"/workflow/{id}")).json()["data"]
    assert replaced["inputs"] == {"c": 3}
    assert "tasks" not in replaced
    assert replaced["name"] == "x"
    renamed = await admin.put(f"/workflow/{id}", json={"name": "y"})
    assert renamed.json()["data"]["name"] == "y"
    assert (await admin.get("/workflow/x")).status_code == 404


async def test_a_creation_under_data_is_read_too(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/prompt", json={"data": {"name": "x", "instruction": "I"}})
    assert answer.status_code == 200
    assert (await admin.get("/prompt/x")).json()["data"]["instruction"] == "I"


async def test_fields_of_the_server_cannot_be_set(api: Api, admin: httpx.AsyncClient) -> None:
    forged = {
        "_id": UNKNOWN_ID,
        "id": UNKNOWN_ID,
        "project": "elsewhere",
        "created": "2000-01-01",
        "updated": "2000-01-01",
        "date": "2000-01-01",
        "last_execution": "2000-01-01",
        "last_execution_date": "2000-01-01",
        "revision": -1,
    }
    id = await create(admin, "agent", "x", **forged)
    assert id != UNKNOWN_ID
    await admin.put(f"/agent/{id}", json=forged)
    await admin.put(f"/agent/{id}", json={"data": forged | {"name": "x"}})
    row = (await admin.get(f"/agent/{id}")).json()["data"]
    assert row["_id"] == row["id"] == id
    assert row["last_execution"] is None
    assert "2000" not in row["created"] + row["updated"] + row["date"]
    assert await api.resources.store.definitions.get("elsewhere", "agent", "x") is None


async def test_a_row_can_be_sent_back_as_it_was_read(admin: httpx.AsyncClient) -> None:
    authored = {"title": "T", "workflows": [{"name": "w", "condition": "$.get('x') is True"}]}
    id = await create(admin, "agent", "x", **authored)
    row = (await admin.get("/agent/x")).json()["data"]
    assert (await admin.put(f"/agent/{id}", json=row)).status_code == 200
    again = (await admin.get("/agent/x")).json()["data"]
    assert {key: again[key] for key in authored} == authored
    assert again["created"] == row["created"]


async def test_what_an_author_wrote_comes_back_verbatim(admin: httpx.AsyncClient) -> None:
    authored = {
        "context-agent": {"limit": "$.get('limit', 10)", "messages": "$.get('messages', [])"},
        "context-variables": {
            "debugger": {"enabled": True},
            "x": {"key": "$TEMP_CONTEXT_VARIABLE_X"},
        },
        "context": {"config-frequency": 0.5, "a.b": {"$ref": "#/x", "": None}},
        "jobs": [{"name": "j", "cron": "*/15 * * * *"}],
        "documents": {"$where": "1"},
        "unknown": [1, 2.5, None, "é \N{CLOUD}"],
    }
    await create(admin, "agent", "x", **authored)
    row = (await admin.get("/agent/x")).json()["data"]
    assert {key: row[key] for key in authored} == authored


async def test_texts_that_clients_cut_are_never_null(admin: httpx.AsyncClient) -> None:
    steps = [
        {"name": "a", "condition": None, "description": None, "inputs": {"x": None}},
        {"name": "b", "condition": True, "description": 5},
        {"name": "c", "condition": ["$.get('x')"]},
        {"name": "d"},
        "e",
    ]
    await create(admin, "agent", "x", title=None, description=None, workflows=steps)
    row = (await admin.get("/agent/x")).json()["data"]
    assert (row["title"], row["description"]) == ("", "")
    assert row["workflows"] == [
        {"name": "a", "condition": "", "description": "", "inputs": {"x": None}},
        {"name": "b", "condition": "True", "description": "5"},
        {"name": "c", "condition": "[\"$.get('x')\"]"},
        {"name": "d"},
        "e",
    ]
    await create(admin, "workflow", "x", tasks=[{"name": "t", "condition": None}])
    row = (await admin.get("/workflow/x")).json()["data"]
    assert row["tasks"] == [{"name": "t", "condition": ""}]
    assert row["slug"] == "x"


async def test_an_agent_says_whether_it_is_scheduled_and_when_it_last_ran(
    api: Api, admin: httpx.AsyncClient
) -> None:
    await create(admin, "agent", "chat")
    await create(admin, "agent", "ticker", context={"config-frequency": 5})
    await create(admin, "agent", "off", status="inactive", context={"config-frequency": 5})
    await create(admin, "agent", "cron", status="active", scheduled=True)
    rows = (await admin.post("/agent/search", json={"page_size": 500})).json()["data"]
    shown = {row["name"]: (row["status"], row["scheduled"]) for row in rows}
    assert shown == {
        "hello": ("inactive", False),
        "chat": ("inactive", False),
        "ticker": ("active", False),
        "off": ("inactive", False),
        "cron": ("active", True),
    }
    assert {row["last_execution"] for row in rows} == {None}
    async with busy_worker(api.resources, Outcome(RunStatus.EXECUTED)):
        await admin.post("/agent/executor/hello", json=HELLO)
    row = (await admin.get("/agent/hello")).json()["data"]
    assert MAIL_DATE.fullmatch(row["last_execution"])
    assert row["last_execution_date"] == row["last_execution"]
    assert row["processing"] is False


async def test_a_page_says_its_total_under_every_name(admin: httpx.AsyncClient) -> None:
    for number in range(12):
        await create(admin, "mapping", f"m{number:02}")
    body = (await admin.post("/mapping/search", json={})).json()
    assert [row["name"] for row in body["data"]] == [f"m{n:02}" for n in range(11, 1, -1)]
    assert body["status"] is True
    assert body["total_documents"] == body["total"] == 12
    assert body["pagination"] == {
        "page": 1,
        "page_size": 10,
        "total": 12,
        "total_documents": 12,
    }
    second = await admin.post("/mapping/search", json={"page": 2, "page_size": 10})
    assert [row["name"] for row in second.json()["data"]] == ["m01", "m00"]
    everything = await admin.post("/mapping/search", json={"page_size": 5000})
    assert len(everything.json()["data"]) == 12
    too_many = await admin.post("/mapping/search", json={"page_size": 5001})
    assert_problem(too_many, 422, "invalid_request")


async def test_the_search_grammar_is_understood_whole(admin: httpx.AsyncClient) -> None:
    ids = {}
    for name, title, minutes in (("a", "One", 1), ("b", "two", 2), ("c", "Two", 3)):
        context = {"config-frequency": minutes}
        ids[name] = await create(
            admin, "agent", name, title=title, context=context, status="active"
        )
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"filters": {"_id": ids["b"]}}, ["b"]),
        ({"filters": {"id": ids["b"]}}, ["b"]),
        ({"filters": {"document_id": ids["b"]}}, ["b"]),
        ({"filters": {"_id": {"$in": [ids["a"], ids["c"]]}}}, ["c", "a"]),
        ({"filters": {"title": {"$regex": "^two", "$options": "i"}}}, ["c", "b"]),
        ({"filters": {"context.config-frequency": {"$gte": 2}}}, ["c", "b"]),
        ({"filters": {"status": "active", "name": "a"}}, ["a"]),
        ({"filters": {"$or": [{"name": "a"}, {"title": "Two"}]}}, ["c", "a"]),
        ({"filters": {"$and": [{"title": "Two"}, {"name": "a"}]}}, []),
        ({"filters": {"name": {"$in": ["a", "b"]}}, "sorters": ["name", 1]}, ["a", "b"]),
        ({"filters": {"status": "active"}, "sorters": ["_id", 1]}, ["a", "b", "c"]),
        ({"filters": {"status": "active"}, "sorters": ["title", -1]}, ["b", "c", "a"]),
        (
            {"filters": {"status": "active"}, "sorters": [["status", 1], ["name", -1]]},
            ["c", "b", "a"],
        ),
        ({"filters": {"status": "active"}, "sorters": ["status", 1, "name", 1]}, ["a", "b", "c"]),
        ({"filters": {"status": "active"}, "sort": "-name"}, ["c", "b", "a"]),
        ({"filters": {"status": "active"}, "sort": "name"}, ["a", "b", "c"]),
        ({"filters": {"created": {"$gte": "2020-01-01"}, "status": "active"}}, ["c", "b", "a"]),
        ({"filters": {"date": {"$gte": "Tue, 03 Feb 2099 08:15:00 GMT"}}}, []),
        ({"filters": {"updated": {"$lt": "2020-01-01T00:00:00Z"}}}, []),
        ({"filters": {"status": "active"}, "page": 2, "page_size": 2}, ["a"]),
        ({"filters": None, "sorters": None, "page": None, "page_size": "1"}, ["c"]),
        ({"filters": {"project": "elsewhere"}}, []),
    ]
    for body, expected in cases:
        assert await names_found(admin, "agent", body) == expected, body


async def test_a_projection_shows_or_hides_fields(admin: httpx.AsyncClient) -> None:
    id = await create(
        admin, "connector", "x", filecontent="code", context={"a": {"b": 1, "c": 2}, "d": 3}
    )
    for fields, expected in (
        (["name"], {"_id": id, "name": "x"}),
        (["name", "nowhere"], {"_id": id, "name": "x"}),
        ({"name": 1, "filecontent": 1}, {"_id": id, "name": "x", "filecontent": "code"}),
        (["context.a.b", "context.d"], {"_id": id, "context": {"a": {"b": 1}, "d": 3}}),
        (["name.first"], {"_id": id}),
    ):
        answer = await admin.post("/connector/search", json={"fields": fields})
        assert answer.json()["data"] == [expected]
    hidden = await admin.post("/connector/search", json={"fields": {"filecontent": 0, "_id": 0}})
    (row,) = hidden.json()["data"]
    assert row["name"] == "x"
    assert "filecontent" not in row


REFUSED_FILTERS: tuple[dict[str, Any], ...] = (
    {"$where": "sleep(1000)"},
    {"name": {"$where": "1"}},
    {"$expr": {"$eq": ["$a", "$b"]}},
    {"name": {"$function": {}}},
    {"$jsonSchema": {}},
    {"$text": {"$search": "x"}},
    {"name": {"$gt": "", "x": 1}},
    {"created": {"$gte": "yesterday"}},
    {"name\0": 1},
    {"$or": {"name": "a"}},
)


async def test_a_filter_outside_the_language_is_refused_by_name(admin: httpx.AsyncClient) -> None:
    for filters in REFUSED_FILTERS:
        answer = await admin.post("/agent/search", json={"filters": filters})
        assert_problem(answer, 422, "query_refused")


WRONG_SEARCHES: tuple[dict[str, Any], ...] = (
    {"filters": "x"},
    {"filters": []},
    {"sorters": "name"},
    {"sorters": ["name"]},
    {"sorters": ["name", 2]},
    {"sorters": ["name", True]},
    {"sorters": [["name", 1]] * 9},
    {"sort": 1},
    {"page": 0},
    {"page_size": -1},
    {"page_size": 1.5},
    {"fields": "name"},
    {"fields": [1]},
    {"sorters": ["$name", 1]},
)


async def test_a_search_of_a_wrong_form_is_refused(admin: httpx.AsyncClient) -> None:
    for body in WRONG_SEARCHES:
        answer = await admin.post("/agent/search", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["status"] == "error"


async def test_a_clients_key_reads_definitions_and_writes_none(
    api: Api, client: httpx.AsyncClient
) -> None:
    for kind in KINDS:
        if kind not in ("agent", "workflow"):
            await api.install(kind, "hello")
        name = "greet" if kind == "workflow" else "hello"
        assert (await client.get(f"/{kind}/{name}")).status_code == 200
        assert await names_found(client, kind, {}) == [name]
        for method, path in (
            ("POST", f"/{kind}"),
            ("PUT", f"/{kind}/{name}"),
            ("DELETE", f"/{kind}/{name}"),
            ("PUT", f"/{kind}/nobody"),
            ("DELETE", f"/{kind}/nobody"),
        ):
            answer = await client.request(method, path, json={"name": "x"})
            assert_problem(answer, 403, "forbidden")
        assert await names_found(client, kind, {}) == [name]


async def test_the_definitions_of_another_project_do_not_exist(
    api: Api, admin: httpx.AsyncClient
) -> None:
    stranger = await api.key(Scope.ADMIN, project="elsewhere")
    async with api.calls(stranger) as calls:
        for kind in KINDS:
            id = await create(admin, kind, "mine")
            for path in (id, "mine", f"id/{id}", "name/mine"):
                assert_problem(await calls.get(f"/{kind}/{path}"), 404, "not_found")
            for target in (id, "mine"):
                answer = await calls.put(f"/{kind}/{target}", json={"title": "theirs"})
                assert_problem(answer, 404, "not_found")
                assert_problem(await calls.delete(f"/{kind}/{target}"), 404, "not_found")
            for filters in ({}, {"_id": id}, {"$or": [{"project": "default"}]}):
                assert await names_found(calls, kind, {"filters": filters}) == []
            row = (await admin.get(f"/{kind}/{id}")).json()["data"]
            assert row.get("title") is None
            await create(calls, kind, "mine")


async def test_a_body_that_is_no_object_is_refused(admin: httpx.AsyncClient) -> None:
    for body in (b"[]", b"{", b'"x"', b"\xff"):
        for method, path in (
            ("POST", "/agent"),
            ("PUT", "/agent/hello"),
            ("POST", "/agent/search"),
        ):
            assert_problem(await admin.request(method, path, content=body), 422, "invalid_body")
    big = b'{"name": "' + b"x" * 1_100_000 + b'"}'
    assert_problem(await admin.post("/agent", content=big), 413, "body_too_large")

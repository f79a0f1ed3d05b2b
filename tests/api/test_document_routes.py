"""Documents over HTTP: the bodies each client sends, what it reads, and what is refused."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx

from machina.auth import Scope
from machina.store.vector_search import VECTOR
from machina.store.vectors import Embedding
from tests.api.harness import Api, assert_problem

MAIL_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
UNKNOWN_ID = "f" * 24
SERVER_FIELDS = ("_id", "id", "created", "updated", "date")


async def create(calls: httpx.AsyncClient, **body: Any) -> str:
    answer = await calls.post("/document", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["_id"])


async def read(calls: httpx.AsyncClient, id: str) -> dict[str, Any]:
    """A document without the server's fields."""
    body = (await calls.get(f"/document/{id}")).json()
    assert body["status"] is True
    return {key: value for key, value in body["data"].items() if key not in SERVER_FIELDS}


async def found(calls: httpx.AsyncClient, body: dict[str, Any]) -> list[str]:
    answer = await calls.post("/document/search", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] is True
    return [row["name"] for row in answer.json()["data"]]


async def test_every_form_of_a_creation_ends_up_where_readers_look(
    client: httpx.AsyncClient,
) -> None:
    state = {"messages": [], "status": "created"}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {
                "name": "a",
                "value": state,
                "metadata": {"k": 1},
                "status": "s",
                "embed-vector": True,
            },
            {
                "name": "a",
                "value": state,
                "metadata": {"k": 1},
                "status": "s",
                "embed-vector": True,
            },
        ),
        (
            {"name": "a", "content": "text", "metadata": {}},
            {"name": "a", "content": "text", "metadata": {}},
        ),
        ({"name": "a", "content": {"value": state}}, {"name": "a", "value": state}),
        (
            {"name": "a", "content": {"value": None, "kind": "ledger"}},
            {"name": "a", "value": None, "content": {"kind": "ledger"}},
        ),
        (
            {"name": "a", "value": 1, "content": {"value": 2}},
            {"name": "a", "value": 1},
        ),
        ({"name": "a", "content": {"kind": "x"}}, {"name": "a", "content": {"kind": "x"}}),
        (
            {"collection_name": "project_manifest", "document": {"version": 1}},
            {"name": "project_manifest", "value": {"version": 1}},
        ),
        (
            {"collection_name": "c", "document": {"name": "n", "value": [1]}, "metadata": {"a": 1}},
            {"name": "n", "value": [1], "metadata": {"a": 1}},
        ),
        ({"data": {"name": "a", "value": {}}}, {"name": "a", "value": {}}),
        ({"name": "a", "value": {}, "metadata": None}, {"name": "a", "value": {}, "metadata": {}}),
        (
            {"name": "a", "document": "x", "unknown": [1]},
            {"name": "a", "document": "x", "unknown": [1]},
        ),
        ({"value": {"no": "name"}}, {"value": {"no": "name"}}),
    ]
    for body, expected in cases:
        answer = (await client.post("/document", json=body)).json()
        assert (answer["status"], answer["message"]) == (True, "document saved"), body
        data = answer["data"]
        assert re.fullmatch("[0-9a-f]{24}", data["_id"])
        assert data["id"] == data["_id"]
        for field in ("created", "updated", "date"):
            assert MAIL_DATE.fullmatch(data[field])
        assert {key: data[key] for key in data.keys() - set(SERVER_FIELDS)} == expected, body
        assert await read(client, data["_id"]) == expected


async def test_a_value_is_any_json_and_comes_back_as_it_was(client: httpx.AsyncClient) -> None:
    for value in (
        [{"title": "Folder"}],
        "text",
        7,
        -1.5,
        True,
        None,
        {},
        [],
        {"a.b": {"$ref": "#/x", "$gt": ""}, "": 1, "sport:competition": {"@id": "é\N{CLOUD}"}},
        {"when": "2026-01-01T00:00:00Z", "created": "yesterday", "_id": "mine", "embedding": [1]},
    ):
        id = await create(client, name="a", value=value)
        assert (await read(client, id))["value"] == value
        assert await found(client, {"filters": {"_id": id}}) == ["a"]


async def test_names_are_shared_by_many_documents(client: httpx.AsyncClient) -> None:
    for name in ("thread", "thread", "sport:Event", "xAI Grok", "é"):
        await create(client, name=name, value={})
    assert await found(client, {"filters": {"name": "thread"}}) == ["thread", "thread"]
    assert await found(client, {"filters": {"name": {"$in": ["sport:Event", "é"]}}}) == [
        "é",
        "sport:Event",
    ]


async def test_a_flat_change_merges_at_the_top_only(client: httpx.AsyncClient) -> None:
    id = await create(client, name="a", value={"x": 1, "y": 2}, metadata={"l": "en"}, status="s")
    answer = (await client.put(f"/document/{id}", json={"value": {"x": 3}})).json()
    assert (answer["status"], answer["message"]) == (True, "document updated")
    assert answer["data"]["_id"] == answer["data"]["id"] == id
    assert answer["data"]["value"] == {"x": 3}
    await client.put(f"/document/{id}", json={"metadata": {"m": 1}, "item_id": id, "status": "t"})
    await client.put(f"/document/{id}", json={"content": {"value": {"z": 1}}, "item_id": id})
    assert await read(client, id) == {
        "name": "a",
        "value": {"z": 1},
        "metadata": {"m": 1},
        "status": "t",
    }


async def test_a_change_under_data_replaces_the_document(
    api: Api, client: httpx.AsyncClient
) -> None:
    id = await create(client, name="a", value={"x": 1}, metadata={"l": "en"}, status="s")
    before = (await client.get(f"/document/{id}")).json()["data"]
    answer = await client.put(f"/document/{id}", json={"data": {"value": [1]}, "_id": id})
    assert answer.json()["message"] == "document updated"
    assert await read(client, id) == {"name": "a", "value": [1]}
    after = (await client.get(f"/document/{id}")).json()["data"]
    assert after["created"] == before["created"]
    await client.put(f"/document/{id}", json={"data": {"name": "b"}})
    assert await read(client, id) == {"name": "b"}
    both = {"data": {"x": 1}, "status": "kept"}
    await client.put(f"/document/{id}", json=both)
    assert await read(client, id) == {"name": "b", **both}


async def test_replacements_at_the_same_time_leave_one_of_them_whole(
    client: httpx.AsyncClient,
) -> None:
    id = await create(client, name="a", value=0)
    bodies = [{"data": {"value": n, f"only-{n}": n}} for n in range(5)]
    answers = await asyncio.gather(*(client.put(f"/document/{id}", json=body) for body in bodies))
    assert {answer.status_code for answer in answers} <= {200, 409}
    last = await read(client, id)
    assert last == {"name": "a", "value": last["value"], f"only-{last['value']}": last["value"]}


async def test_a_deleted_document_is_gone(client: httpx.AsyncClient) -> None:
    id = await create(client, name="a", value=1)
    answer = await client.delete(f"/document/{id}")
    assert answer.json() == {
        "data": {"_id": id, "id": id},
        "message": "document deleted",
        "status": True,
    }
    for method in ("GET", "PUT", "DELETE"):
        again = await client.request(method, f"/document/{id}", json={"value": 1})
        assert_problem(again, 404, "not_found")
    replaced = await client.put(f"/document/{id}", json={"data": {"value": 1}})
    assert_problem(replaced, 404, "not_found")
    assert await found(client, {}) == []


async def test_what_is_not_there_is_404(client: httpx.AsyncClient) -> None:
    await create(client, name="thread", value=1)
    for id in (UNKNOWN_ID, "thread", "9f1c2a90-0000-4000-8000-1234567890ab", "$ne", "x" * 5000):
        assert_problem(await client.get(f"/document/{id}"), 404, "not_found")


async def test_fields_of_the_server_cannot_be_set(api: Api, client: httpx.AsyncClient) -> None:
    forged = {
        "_id": UNKNOWN_ID,
        "id": UNKNOWN_ID,
        "project": "elsewhere",
        "created": "2000-01-01",
        "updated": "2000-01-01",
        "date": "2000-01-01",
        "embedding": [0.1, 0.2],
        "embedding_space": "mine",
    }
    id = await create(client, name="a", value=1, **forged)
    assert id != UNKNOWN_ID
    await client.put(f"/document/{id}", json=forged)
    await client.put(f"/document/{id}", json={"data": forged | {"name": "a", "value": 1}})
    row = (await client.get(f"/document/{id}")).json()["data"]
    assert "2000" not in row["created"] + row["updated"] + row["date"]
    assert await read(client, id) == {"name": "a", "value": 1}
    stored = await api.resources.store.documents.get("default", id)
    assert stored is not None
    assert set(stored) == {"_id", "project", "name", "value", "created", "updated"}


async def test_an_embedding_never_leaves_and_outlives_changes(
    api: Api, client: httpx.AsyncClient
) -> None:
    documents = api.resources.store.documents
    embedding = Embedding.of("toy", [0.6, 0.8])
    record = await documents.insert(
        "default", {"name": "a", "value": {"t": 1}}, embedding=embedding
    )
    id = record["_id"]
    shown = [
        await client.get(f"/document/{id}"),
        await client.post("/document/search", json={}),
        await client.post("/document/search", json={"fields": ["name", "embedding"]}),
        await client.post("/document/retrieve", json={"document_id": id}),
        await client.put(f"/document/{id}", json={"value": {"t": 2}}),
        await client.put(f"/document/{id}", json={"data": {"value": {"t": 3}}}),
    ]
    for answer in shown:
        assert answer.status_code == 200
        assert "embedding" not in answer.text
        assert "toy" not in answer.text
    kept = await api.resources.store.backend.collection("documents").get(id)
    assert kept is not None
    assert kept["value"] == {"t": 3}
    assert kept[VECTOR] == embedding.vector
    for body in (
        {"filters": {"embedding": {"$gt": 0}}},
        {"filters": {"$or": [{"embedding.0": 0.5}]}},
        {"sorters": ["embedding", 1]},
    ):
        answer = await client.post("/document/search", json=body)
        assert_problem(answer, 422, "invalid_request")


async def test_the_search_grammar_is_understood_whole(client: httpx.AsyncClient) -> None:
    ids = {}
    for name, turn, language in (("a", 1, "en"), ("b", 2, "pt"), ("c", 3, "pt-BR")):
        ids[name] = await create(
            client,
            name=name,
            value={"turn": turn, "session_id": f"ses_{turn}", "tags": [{"k": turn}]},
            metadata={"language": language, "title": name.upper()},
        )
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["c", "b", "a"]),
        ({"filters": {"_id": ids["b"]}}, ["b"]),
        ({"filters": {"id": ids["b"]}}, ["b"]),
        ({"filters": {"document_id": ids["b"], "name": "b"}}, ["b"]),
        ({"filters": {"document_id": ids["b"], "name": "a"}}, []),
        ({"filters": {"document_id": {"$in": [ids["a"], ids["b"]]}}}, ["b", "a"]),
        ({"document_id": ids["c"]}, ["c"]),
        ({"document_id": ids["c"], "filters": {"name": "a"}}, []),
        ({"filters": {"value.session_id": "ses_2"}}, ["b"]),
        ({"filters": {"value.tags.k": 3}}, ["c"]),
        ({"filters": {"metadata.language": {"$in": ["en", "pt"]}}}, ["b", "a"]),
        ({"filters": {"metadata.title": {"$regex": "b|C", "$options": "i"}}}, ["c", "b"]),
        ({"filters": {"$and": [{"value.turn": {"$gt": 1}}, {"value.turn": {"$lt": 3}}]}}, ["b"]),
        ({"filters": {"$or": [{"name": "a"}, {"name": "c"}]}}, ["c", "a"]),
        ({"filters": {"value.gone": {"$exists": False}}, "sorters": ["_id", 1]}, ["a", "b", "c"]),
        ({"filters": {"created": {"$gte": "2020-01-01T00:00:00Z"}}}, ["c", "b", "a"]),
        ({"filters": {"created": {"$gte": "Tue, 03 Feb 2026 08:15:00 GMT"}}}, ["c", "b", "a"]),
        ({"filters": {"date": {"$lt": "2020-01-01"}}}, []),
        ({"filters": {"updated": {"$gt": "Tue, 03 Feb 2099 08:15:00 GMT"}}}, []),
        ({"sorters": ["value.turn", 1]}, ["a", "b", "c"]),
        ({"sorters": [["metadata.language", -1], ["_id", 1]]}, ["c", "b", "a"]),
        ({"sort": "-updated"}, ["c", "b", "a"]),
        ({"sort": "created", "page_size": 1}, ["a"]),
        ({"page": 2, "page_size": 2}, ["a"]),
        ({"page": 3, "page_size": 2}, []),
        ({"filters": {"project": "elsewhere"}}, []),
    ]
    for body, expected in cases:
        assert await found(client, body) == expected, body


async def test_a_page_of_documents_says_its_total_under_every_name(
    client: httpx.AsyncClient,
) -> None:
    for _ in range(11):
        await create(client, name="thread", value={"messages": []})
    body = (await client.post("/document/search", json={"filters": {"name": "thread"}})).json()
    assert len(body["data"]) == 10
    assert body["total_documents"] == body["total"] == 11
    assert body["pagination"] == {
        "page": 1,
        "page_size": 10,
        "total": 11,
        "total_documents": 11,
    }
    everything = await client.post("/document/search", json={"page_size": 5000})
    assert len(everything.json()["data"]) == 11
    assert body["data"][0]["id"] == body["data"][0]["_id"]
    slim = await client.post(
        "/document/search", json={"fields": ["value.messages"], "page_size": 1}
    )
    assert slim.json()["data"] == [{"_id": body["data"][0]["_id"], "value": {"messages": []}}]


async def test_retrieving_answers_with_a_document_or_with_a_page(client: httpx.AsyncClient) -> None:
    id = await create(client, name="policy", value={"x": 1})
    for key in ("document_id", "item_id", "_id", "id"):
        body = (await client.post("/document/retrieve", json={key: id})).json()
        assert (body["status"], body["data"]["value"]) == (True, {"x": 1})
    page = (await client.post("/document/retrieve", json={"filters": {"name": "policy"}})).json()
    assert [row["_id"] for row in page["data"]] == [id]
    unknown = await client.post("/document/retrieve", json={"id": UNKNOWN_ID})
    assert_problem(unknown, 404, "not_found")
    wrong = await client.post("/document/retrieve", json={"id": {"$ne": None}})
    assert_problem(wrong, 422, "invalid_request")


REFUSED_BODIES: tuple[dict[str, Any], ...] = (
    {},
    {"_id": UNKNOWN_ID},
    {"name": {"$ne": None}, "value": 1},
    {"name": ["a"], "value": 1},
    {"name": 7, "value": 1},
    {"name": None, "value": 1},
    {"name": "", "value": 1},
    {"name": "a/b", "value": 1},
    {"name": "a\nb", "value": 1},
    {"name": "x" * 201, "value": 1},
    {"name": "a", "metadata": [1]},
    {"name": "a", "metadata": "x"},
    {"name": "a", "$set": {"project": "elsewhere"}},
    {"name": "a", "$where": "1"},
    {"name": "a", "value.x": 1},
    {"name": "a", "project.x": 1},
    {"name": "a", "created.x": 1},
    {"name": "a", "": 1},
    {"collection_name": {"$gt": ""}, "document": {"x": 1}},
    {"name": "a", "value": {"k\0": 1}},
    {"name": "a", "k\0": 1},
)
REFUSED_FILTERS: tuple[dict[str, Any], ...] = (
    {"$where": "sleep(1000)"},
    {"value": {"$where": "1"}},
    {"$expr": {"$gt": ["$value.x", 1]}},
    {"value.x": {"$function": {"body": "1"}}},
    {"name": {"$not": {"$where": "1"}}},
    {"$or": [{"$where": "1"}]},
    {"$and": [{"name": {"$near": 1}}]},
    {"$comment": "x"},
    {"$jsonSchema": {}},
    {"$text": {"$search": "x"}},
    {"value": {"$elemMatch": {"$where": "1"}}},
    {"name": {"$regex": 7}},
    {"name": {"$regex": "("}},
    {"created": {"$gte": "soon"}},
    {"$or": []},
    {"name\0": 1},
)


async def test_a_body_that_would_reach_beyond_the_document_is_refused(
    api: Api, client: httpx.AsyncClient
) -> None:
    id = await create(client, name="kept", value=1)
    for body in REFUSED_BODIES:
        answer = await client.post("/document", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["status"] == "error"
        if body.keys() - {"_id", "collection_name", "document"}:
            changed = await client.put(f"/document/{id}", json=body)
            assert changed.status_code == 422, body
            replaced = await client.put(f"/document/{id}", json={"data": body})
            assert replaced.status_code == 422, body
    assert await read(client, id) == {"name": "kept", "value": 1}
    assert await found(client, {}) == ["kept"]


async def test_a_filter_outside_the_language_is_refused_by_name(client: httpx.AsyncClient) -> None:
    await create(client, name="a", value={"x": 1})
    for filters in REFUSED_FILTERS:
        answer = await client.post("/document/search", json={"filters": filters})
        assert_problem(answer, 422, "query_refused")
    wrong: tuple[dict[str, Any], ...] = (
        {"filters": "x"},
        {"page_size": 5001},
        {"sorters": "x"},
        {"document_id": {}},
    )
    for body in wrong:
        assert_problem(await client.post("/document/search", json=body), 422, "invalid_request")


async def test_an_id_in_the_path_is_never_an_operator(client: httpx.AsyncClient) -> None:
    await create(client, name="a", value=1)
    for id in ('{"$ne": null}', "[$ne]", "$exists", ".*"):
        for method in ("PUT", "DELETE"):
            answer = await client.request(method, f"/document/{id}", json={"value": 2})
            assert_problem(answer, 404, "not_found")
    assert await found(client, {"filters": {"value": 1}}) == ["a"]


async def test_the_documents_of_another_project_do_not_exist(
    api: Api, client: httpx.AsyncClient
) -> None:
    id = await create(client, name="mine", value=1)
    stranger = await api.key(Scope.ADMIN, project="elsewhere")
    async with api.calls(stranger) as calls:
        for method, body in (
            ("GET", None),
            ("PUT", {"value": 2}),
            ("PUT", {"data": {"value": 2}}),
            ("DELETE", None),
        ):
            answer = await calls.request(method, f"/document/{id}", json=body)
            assert_problem(answer, 404, "not_found")
        assert_problem(await calls.post("/document/retrieve", json={"id": id}), 404, "not_found")
        for filters in ({}, {"_id": id}, {"$or": [{"project": "default"}]}, {"project": "default"}):
            assert await found(calls, {"filters": filters}) == []
        await create(calls, name="theirs", value=1, project="default")
    assert await found(client, {}) == ["mine"]
    assert await read(client, id) == {"name": "mine", "value": 1}


async def test_documents_are_shared_by_the_keys_of_a_project(
    client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    id = await create(admin, name="thread", value={"messages": []})
    assert (
        await client.put(f"/document/{id}", json={"value": {"messages": [1]}})
    ).status_code == 200
    assert (await read(admin, id))["value"] == {"messages": [1]}
    assert (await client.delete(f"/document/{id}")).status_code == 200

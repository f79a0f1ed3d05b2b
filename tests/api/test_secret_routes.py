"""Secrets over HTTP: in they go, and only names come out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from machina.auth import Scope
from machina.ids import make_mint
from machina.store.secrets import SecretStore
from machina.vault import make_key, make_vault
from tests.api.harness import Api, assert_problem, make_settings, running_api
from tests.services import RedisServer

CANARY = "canary-8d1f02"
NAME = "TEMP_CONTEXT_VARIABLE_WEATHER"


@pytest.fixture
async def api(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Api]:
    """An API process whose vault has a key."""
    settings = make_settings(tmp_path, redis_server.url, vault_key=make_key())
    async with running_api(settings) as running:
        yield running


async def values(api: Api, project: str = "default") -> dict[str, str]:
    return await api.resources.store.secrets.values(project)


async def test_a_secret_is_kept_under_either_word_and_updated(
    api: Api, admin: httpx.AsyncClient
) -> None:
    for body, message in (
        ({"name": NAME, "key": "one"}, "secret saved"),
        ({"name": f"${NAME}", "value": "two"}, "secret updated"),
        ({"name": NAME, "value": {"type": "service_account"}}, "secret updated"),
        ({"name": "B", "key": "x", "_context": {"user_id": "u"}}, "secret saved"),
    ):
        answer = await admin.post("/secrets", json=body)
        assert answer.status_code == 200, answer.text
        name = str(body["name"]).removeprefix("$")
        assert answer.json() == {"data": {"name": name}, "message": message, "status": True}
    assert await values(api) == {NAME: '{"type":"service_account"}', "B": "x"}


async def test_a_value_never_comes_back(api: Api, admin: httpx.AsyncClient) -> None:
    with capture_logs() as logs:
        answers = [
            await admin.post("/secrets", json={"name": NAME, "key": CANARY}),
            await admin.get("/secrets"),
            await admin.post("/secrets/search", json={"fields": ["name", "value", "data"]}),
            await admin.post("/secrets/search", json={"filters": {"value": CANARY}}),
            await admin.post("/secrets/check", json={"names": [NAME]}),
            await admin.post("/secrets", json={"name": "bad name", "key": CANARY}),
            await admin.post("/secrets", json={"name": NAME, "key": CANARY, "value": CANARY}),
            await admin.post("/secrets", json={"name": NAME, "key": [CANARY] * 2, "value": 1}),
            await admin.post("/secrets", json={"name": NAME, "key": f"{CANARY}\0"}),
            await admin.get(f"/secrets/{NAME}"),
            await admin.delete(f"/secrets/{NAME}"),
        ]
    for answer in answers:
        assert CANARY not in answer.text
    assert CANARY not in str(logs)
    assert [answer.status_code for answer in answers] == [
        *(200, 200, 200, 422, 200, 422, 422, 422, 422, 405, 200)
    ]


async def test_names_are_listed_and_searched(admin: httpx.AsyncClient) -> None:
    for name in ("B", "A", "C"):
        await admin.post("/secrets", json={"name": name, "key": CANARY})
    listed = (await admin.get("/secrets")).json()
    assert [row["name"] for row in listed["data"]] == ["A", "B", "C"]
    assert listed["total_documents"] == 3
    assert set(listed["data"][0]) == {"_id", "id", "name", "created", "updated", "date"}
    assert listed["data"][0]["created"].endswith("GMT")
    for body, expected in (
        ({"filters": {"name": {"$regex": "^[BC]"}}, "sorters": ["name", 1]}, ["B", "C"]),
        ({"filters": {"_id": listed["data"][0]["_id"]}}, ["A"]),
        ({"page_size": 1, "page": 2, "sort": "name"}, ["B"]),
    ):
        found = (await admin.post("/secrets/search", json=body)).json()
        assert [row["name"] for row in found["data"]] == expected
    for filters in ({"$where": "1"}, {"data": {"$gt": ""}}, {"nonce": 1}, {"name": {"$expr": 1}}):
        refused = await admin.post("/secrets/search", json={"filters": filters})
        assert refused.status_code == 422
        assert refused.json()["status"] == "error"


async def test_callers_ask_whether_secrets_are_there(admin: httpx.AsyncClient) -> None:
    await admin.post("/secrets", json={"name": NAME, "key": "x"})
    for body in ({"names": [NAME, "B"]}, {"secrets": [NAME, "B"]}):
        assert (await admin.post("/secrets/check", json=body)).json() == {
            "data": {"secrets": {NAME: True, "B": False}, "missing": ["B"], "exists": False},
            "status": True,
        }
    one = (await admin.post("/secrets/check", json={"name": f"${NAME}"})).json()
    assert one["data"] == {"secrets": {f"${NAME}": True}, "missing": [], "exists": True}
    refused: tuple[Any, ...] = (None, [], {}, [1], [{"$ne": 1}], ["x"] * 1001)
    for names in refused:
        wrong = await admin.post("/secrets/check", json={"names": names})
        assert_problem(wrong, 422, "invalid_request")


async def test_a_secret_is_deleted_by_path_or_by_body(api: Api, admin: httpx.AsyncClient) -> None:
    for name in ("A", "B", "C"):
        await admin.post("/secrets", json={"name": name, "key": "x"})
    gone = await admin.delete("/secrets/A")
    assert gone.json() == {"data": {"name": "A"}, "message": "secret deleted", "status": True}
    assert (await admin.post("/secrets/delete", json={"name": "$B"})).status_code == 200
    assert_problem(await admin.delete("/secrets/A"), 404, "not_found")
    assert_problem(await admin.post("/secrets/delete", json={"name": "A"}), 404, "not_found")
    refused = await admin.post("/secrets/delete", json={"name": {"$ne": None}})
    assert_problem(refused, 422, "invalid_request")
    assert await values(api) == {"C": "x"}


async def test_only_an_administrator_comes_near_secrets(
    api: Api, client: httpx.AsyncClient, nobody: httpx.AsyncClient
) -> None:
    await api.resources.store.secrets.put("default", NAME, CANARY)
    body: dict[str, Any] = {"name": NAME, "key": "x", "names": [NAME]}
    for method, path in (
        ("POST", "/secrets"),
        ("GET", "/secrets"),
        ("POST", "/secrets/search"),
        ("POST", "/secrets/check"),
        ("POST", "/secrets/delete"),
        ("DELETE", f"/secrets/{NAME}"),
        ("DELETE", "/secrets/unknown"),
        ("POST", "/vault/validate"),
    ):
        assert_problem(await client.request(method, path, json=body), 403, "forbidden")
        assert_problem(await nobody.request(method, path, json=body), 401, "unauthenticated")
    assert await values(api) == {NAME: CANARY}


async def test_the_secrets_of_another_project_do_not_exist(
    api: Api, admin: httpx.AsyncClient
) -> None:
    await admin.post("/secrets", json={"name": NAME, "key": "mine"})
    stranger = await api.key(Scope.ADMIN, project="elsewhere")
    async with api.calls(stranger) as calls:
        assert (await calls.get("/secrets")).json()["data"] == []
        checked = await calls.post("/secrets/check", json={"name": NAME})
        assert checked.json()["data"]["exists"] is False
        assert_problem(await calls.delete(f"/secrets/{NAME}"), 404, "not_found")
        saved = await calls.post("/secrets", json={"name": NAME, "key": "theirs"})
        assert saved.json()["message"] == "secret saved"
    assert await values(api) == {NAME: "mine"}


async def test_without_a_key_the_vault_says_which_variable_to_set(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with (
        running_api(make_settings(tmp_path, redis_server.url)) as api,
        api.calls(api.admin) as admin,
    ):
        answer = await admin.post("/secrets", json={"name": NAME, "key": CANARY})
        body = assert_problem(answer, 503, "vault_locked")
        assert "MACHINA_VAULT_KEY" in body["detail"]
        assert CANARY not in answer.text
        assert (await admin.get("/secrets")).json()["data"] == []


async def test_the_credentials_of_a_manifest_are_validated_without_being_shown(
    api: Api, admin: httpx.AsyncClient
) -> None:
    document = '{"type": "service_account", "project_id": "p"}'
    for name, value in (("A", CANARY), ("B", document), ("C", "not json"), ("D", "   ")):
        await api.resources.store.secrets.put("default", name, value)
    required = [
        {"name": "A"},
        {"name": "$A", "validation": {"type": "non_empty_string"}},
        {"name": "D", "validation": {"type": "non_empty_string"}},
        {"name": "B", "validation": {"type": "json_object", "required_keys": ["type"]}},
        {"name": "B", "validation": {"type": "json_object", "required_keys": ["key"]}},
        {"name": "C", "validation": {"type": "json_object"}},
        {"name": "A", "validation": {"type": "http", "url": "https://x.example/{value}"}},
        {"name": "E"},
    ]
    answer = await admin.post("/vault/validate", json={"required_credentials": required})
    assert CANARY not in answer.text
    data = answer.json()["data"]
    assert [row["valid"] for row in data["credentials"]] == [
        *(True, True, False, True, False, False, None, False)
    ]
    assert [row["present"] for row in data["credentials"]] == [*[True] * 7, False]
    assert data["valid"] is False
    named = await admin.post("/vault/validate", json={"names": ["A", "B"]})
    assert named.json()["data"]["valid"] is True
    for wrong in ({}, {"names": [1]}, {"required_credentials": [{"x": 1}]}, {"names": "A" * 300}):
        refused = await admin.post("/vault/validate", json=wrong)
        assert_problem(refused, 422, "invalid_request")


async def test_a_credential_that_no_key_opens_is_there_and_not_valid(
    api: Api, admin: httpx.AsyncClient
) -> None:
    elsewhere = SecretStore(api.resources.store.backend, make_mint(), make_vault(make_key()))
    await elsewhere.put("default", "A", CANARY)
    validations: tuple[dict[str, str], ...] = ({}, {"type": "json_object"}, {"type": "http"})
    required = [{"name": "A", "validation": validation} for validation in validations]
    answer = await admin.post("/vault/validate", json={"required_credentials": required})
    row = {"name": "A", "present": True, "valid": False}
    assert answer.json()["data"] == {"credentials": [row] * 3, "valid": False}

"""What the CLI asks of the hosted service, answered here instead of with the key elsewhere."""

from __future__ import annotations

import httpx

from machina.auth import Scope
from tests.api.harness import Api, assert_problem


async def test_the_cli_learns_who_it_is_and_which_project_it_has(client: httpx.AsyncClient) -> None:
    session = (await client.get("/login/session")).json()
    assert session["status"] is True
    assert {"_id", "name", "email"} <= set(session["data"])
    projects = (await client.post("/user/projects/search", json={})).json()
    (project,) = projects["data"]
    assert project["project_id"] == project["project_name"] == project["project_slug"] == "default"
    assert {"organization_id", "status"} <= set(project)
    organizations = (await client.post("/user/organizations/search", json={})).json()
    (organization,) = organizations["data"]
    assert set(organization) == {"organization_id", "organization_name", "organization_slug"}
    for path in ("client-api-status", "api-status"):
        status = (
            await client.get(f"/organization/{organization['organization_id']}/{path}")
        ).json()
        assert status == {"data": {"status": "online"}, "status": True}
    beyond = (await client.post("/user/projects/search", json={"page": 2})).json()
    assert (beyond["data"], beyond["total"]) == ([], 1)


async def test_an_administrator_makes_finds_and_revokes_keys(
    api: Api, admin: httpx.AsyncClient
) -> None:
    made = {}
    for level in ("admin", "client", None, "owner", 9):
        body = {"name": f"{level}", "level": level, "organization_id": "x", "project_id": "y"}
        data = (await admin.post("/system/api/generate-key", json=body)).json()["data"]
        principal = await api.resources.keyring.verify(data["api_key"])
        assert principal is not None
        assert principal.project == "default"
        assert principal.is_admin is (level == "admin")
        made[data["_id"]] = data["api_key"]
    rows = (await admin.post("/system/api/search-key", json={"page_size": 100})).json()["data"]
    assert {row["_id"] for row in rows} >= set(made)
    for row in rows:
        text = made.get(row["_id"])
        assert text is None or (
            text.startswith(row["key"].removesuffix("…")) and text != row["key"]
        )
    for key_id, text in made.items():
        answer = await admin.post("/system/api/revoke-key", json={"api_key_id": key_id})
        assert answer.json()["message"] == "key revoked"
        assert await api.resources.keyring.verify(text) is None
        again = await admin.post("/system/api/revoke-key", json={"api_key_id": key_id})
        assert_problem(again, 404, "not_found")
    for key_id in (None, {"$ne": 1}, 7):
        wrong = await admin.post("/system/api/revoke-key", json={"api_key_id": key_id})
        assert_problem(wrong, 422, "invalid_request")
    for name in (["x"], "x" * 201, "a\nb"):
        wrong = await admin.post("/system/api/generate-key", json={"name": name})
        assert_problem(wrong, 422, "invalid_request")


async def test_keys_are_an_administrators_and_of_its_project(
    api: Api, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    for path in ("search-key", "generate-key", "revoke-key"):
        answer = await client.post(f"/system/api/{path}", json={"api_key_id": "x"})
        assert_problem(answer, 403, "forbidden")
    theirs = await api.key(Scope.ADMIN, project="elsewhere")
    principal = await api.resources.keyring.verify(theirs)
    assert principal is not None
    body = {"api_key_id": principal.key_id}
    assert_problem(await admin.post("/system/api/revoke-key", json=body), 404, "not_found")
    assert await api.resources.keyring.verify(theirs) is not None
    rows = (await admin.post("/system/api/search-key", json={"page_size": 500})).json()["data"]
    assert principal.key_id not in [row["_id"] for row in rows]

"""The routes of templates: exact answers, scopes, limits, and every way in which they refuse."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from machina.api.template_bodies import read_git_requests
from machina.errors import Invalid
from machina.templates import GitRequest, Templates
from machina.templates.installing import MAX_WAITING
from tests.api.harness import Api, assert_problem, make_settings, running_api
from tests.services import RedisServer
from tests.templates.git_server import commit, make_repository
from tests.templates.packing import zipped

SECRET = "a-long-secret-of-the-webhook"
TEMPLATE = {
    "_install.yml": "setup: {title: T, description: D, value: v, version: 1.0.0}\n"
    "datasets: [{type: workflow, path: w.yml}, {type: prompts, path: p.yml}]",
    "w.yml": "workflow: {name: flow, tasks: []}",
    "p.yml": "prompts: [{name: p1}, {name: p2}]",
}


@pytest.fixture
async def api(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Api]:
    settings = make_settings(
        tmp_path / "data", redis_server.url, git_allow=("file",), template_max_bytes=100_000
    )
    async with running_api(settings) as running:
        yield running


@pytest.fixture
async def repository(tmp_path: Path) -> str:
    files = {f"templates/one/{name}": text for name, text in TEMPLATE.items()}
    files["templates/two/_install.yml"] = "datasets: [{path: a.yml}, {path: missing.yml}]"
    files["templates/two/a.yml"] = "agent: {name: two}"
    await asyncio.to_thread(make_repository, tmp_path / "r", files)
    return f"file://{tmp_path / 'r'}"


async def upload(client: httpx.AsyncClient, data: bytes, name: str = "file") -> httpx.Response:
    return await client.post("/templates/upload", files={name: ("t.zip", data, "application/zip")})


async def test_an_upload_answers_in_the_recorded_form(api: Api, admin: httpx.AsyncClient) -> None:
    answer = await upload(admin, zipped(TEMPLATE))
    assert answer.status_code == 200
    flow = await api.resources.store.definitions.get("default", "workflow", "flow")
    assert flow is not None
    body = answer.json()
    first, prompts = body["data"]["results"][0]["data"]["results"]
    assert first == {"data": {"id": flow["_id"]}, "message": "workflow saved", "status": True}
    assert [r["message"] for r in prompts] == ["prompt saved", "prompt saved"]
    assert (body["status"], body["error"]) == (True, None)
    assert body["data"]["message"] == "3 saved, 0 updated, 0 failed"
    again = (await upload(admin, zipped(TEMPLATE), "archive")).json()
    assert again["data"]["results"][0]["data"]["results"] == [
        {"message": "workflow updated", "status": True},
        [{"message": "prompt updated", "status": True}] * 2,
    ]


async def test_an_upload_without_a_manifest_installs_what_it_holds(
    admin: httpx.AsyncClient,
) -> None:
    body = (await upload(admin, zipped({"t/w.yml": TEMPLATE["w.yml"], "x.txt": "x"}))).json()
    assert body["data"]["message"] == "1 saved, 0 updated, 0 failed"


async def test_a_broken_entry_is_reported_and_the_rest_installed(
    admin: httpx.AsyncClient,
) -> None:
    answer = await upload(admin, zipped(TEMPLATE | {"w.yml": "workflow: ["}))
    body = answer.json()
    assert (answer.status_code, body["status"], body["error"]) == (200, True, None)
    (template,) = body["data"]["results"]
    assert template["status"] is False
    assert template["data"]["results"][0]["status"] is False
    assert "w.yml: line " in template["data"]["results"][0]["message"]


async def test_an_upload_of_which_nothing_can_be_used_is_an_error(
    api: Api, admin: httpx.AsyncClient
) -> None:
    answer = await upload(
        admin, zipped({"_install.yml": "datasets: [{path: a}, {path: b}, {path: c}, {path: d}]"})
    )
    body = assert_problem(answer, 422, "install_failed")
    assert "a: no such file" in body["error"]["message"]
    assert "(and 1 more)" in body["error"]["message"]
    assert len(body["details"]["results"][0]["data"]["results"]) == 4
    evil = await upload(admin, zipped(TEMPLATE | {"../evil.yml": "x"}))
    assert_problem(evil, 422, "archive_refused")
    assert_problem(await upload(admin, b"no archive"), 422, "archive_refused")
    assert_problem(await upload(admin, zipped({"README.md": "x"})), 422, "template_missing")
    assert await api.resources.store.definitions.get("default", "workflow", "flow") is None


async def test_an_upload_over_the_limit_is_refused_packed_and_unpacked(
    admin: httpx.AsyncClient,
) -> None:
    bomb = zipped(TEMPLATE | {f"f{n}": bytes(60_000) for n in range(2)})
    assert_problem(await upload(admin, bomb), 413, "body_too_large")
    large = zipped({"a": bytes(200_000)}, zipfile.ZIP_STORED)
    refused = await upload(admin, large)
    assert_problem(refused, 413, "body_too_large")
    assert refused.headers["connection"] == "close"

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while True:
            yield bytes(50_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await admin.post("/templates/upload", content=endless(), headers=headers)
    assert_problem(answer, 413, "body_too_large")


async def test_other_bodies_keep_their_own_limit(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/templates/git", content=b" " * 2_000_000)
    assert_problem(answer, 413, "body_too_large")


async def test_an_upload_must_be_a_form_with_a_file(admin: httpx.AsyncClient) -> None:
    json_body = await admin.post("/templates/upload", json={"file": "x"})
    assert_problem(json_body, 415, "unsupported_media_type")
    without = await admin.post("/templates/upload", files={"note": (None, "x")})
    assert_problem(without, 422, "invalid_request")
    headers = {"Content-Type": "multipart/form-data"}
    broken = await admin.post("/templates/upload", content=b"x", headers=headers)
    assert_problem(broken, 400, "bad_request")


@pytest.mark.parametrize("name", ["../../x.zip", "C:\\x.zip", "a\u202eb.zip", "x" * 300])
async def test_what_an_archive_is_called_is_no_path(
    name: str, api: Api, admin: httpx.AsyncClient
) -> None:
    files = {"file": (name, zipped(TEMPLATE), "application/zip")}
    assert (await admin.post("/templates/upload", files=files)).status_code == 200
    (record,) = await api.resources.store.backend.collection("templates").find({})
    assert record["place"] in ("x.zip", "upload.zip")


async def test_templates_install_from_git_as_every_client_asks(
    admin: httpx.AsyncClient, repository: str
) -> None:
    one: dict[str, Any] = {
        "repo_url": repository,
        "repo_branch": "main",
        "template": "templates/one",
    }
    cli = [one | {"private_repository": False}]
    mcp = {
        "repositories": [{"repo_url": repository, "branch": "main", "template": "templates/one"}]
    }
    for body in (cli, mcp, one):
        answer = await admin.post("/templates/git", json=body)
        assert answer.status_code == 200, answer.text
        (template,) = answer.json()["data"]["results"]
        assert template["data"]["template"] == "templates/one"
        assert template["status"] is True
    both = await admin.post("/templates/git", json=[one, one | {"template": "templates/two"}])
    assert both.json()["data"]["message"] == "1 saved, 3 updated, 1 failed"


async def test_a_repository_that_gives_nothing_is_an_error_without_its_token(
    admin: httpx.AsyncClient, repository: str, caplog: pytest.LogCaptureFixture
) -> None:
    ask: dict[str, Any] = {"repo_url": repository, "template": "templates/none"}
    assert_problem(await admin.post("/templates/git", json=[ask]), 422, "install_failed")
    for url in ("ext::sh -c id", "http://127.0.0.1/x", "https://ghp_canary@169.254.169.254/x"):
        ask = {"repo_url": url, "gh_token": "ghp_canary", "private_repository": True}
        answer = await admin.post("/templates/git", json=[ask])
        assert_problem(answer, 422, "install_failed")
        assert "ghp_canary" not in answer.text
    assert "ghp_canary" not in caplog.text


async def test_one_repository_that_fails_holds_up_no_other(
    admin: httpx.AsyncClient, repository: str
) -> None:
    answer = await admin.post(
        "/templates/git",
        json=[{"repo_url": f"{repository}-absent"}, {"repo_url": repository, "template": "one"}],
    )
    failed, installed = answer.json()["data"]["results"]
    assert (failed["status"], failed["error"]["id"]) == (False, "git_failed")
    assert installed["status"] is True


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{}",
        "7",
        '"x"',
        "[7]",
        '[{"repo_url": 7}]',
        '{"repositories": {}}',
        '[{"repo_url": ""}]',
    ],
)
async def test_a_body_that_names_no_repository_is_refused(
    body: str, admin: httpx.AsyncClient
) -> None:
    assert_problem(await admin.post("/templates/git", content=body), 422, "invalid_request")


def test_every_spelling_of_a_request_is_read() -> None:
    (request,) = read_git_requests(
        {
            "url": " https://h.test/r ",
            "branch": "b",
            "path": "t",
            "token": "x",
            "private_repository": "true",
        }
    )
    assert request == GitRequest("https://h.test/r", "b", "t", "x", True)
    with pytest.raises(Invalid):
        read_git_requests([{"repo_url": "https://h.test/r"}] * 101)


async def test_the_templates_of_a_repository_are_listed(
    admin: httpx.AsyncClient, repository: str
) -> None:
    answer = await admin.post(
        "/templates/directories/git",
        json={"repo_url": repository, "branch": "main", "private_repository": False},
    )
    assert answer.json() == {
        "data": {
            "directories": [
                {
                    "path": "templates/one",
                    "datasets": [
                        {"type": "workflow", "path": "w.yml"},
                        {"type": "prompts", "path": "p.yml"},
                    ],
                    "title": "T",
                    "description": "D",
                    "version": "1.0.0",
                },
                {
                    "path": "templates/two",
                    "datasets": [
                        {"type": "", "path": "a.yml"},
                        {"type": "", "path": "missing.yml"},
                    ],
                },
            ]
        },
        "status": True,
    }
    refused = await admin.post("/templates/directories/git", json={"repo_url": "ext::sh"})
    assert_problem(refused, 422, "git_refused")
    failed = await admin.post("/templates/directories/git", json={"repo_url": f"{repository}-no"})
    assert_problem(failed, 502, "git_failed")


async def test_templates_are_for_administrators(client: httpx.AsyncClient, api: Api) -> None:
    assert_problem(await upload(client, zipped(TEMPLATE)), 403, "forbidden")
    for path in ("/templates/git", "/templates/directories/git"):
        assert_problem(await client.post(path, json=[]), 403, "forbidden")
    assert await api.resources.store.definitions.get("default", "workflow", "flow") is None


async def test_a_project_gets_its_own_installation(api: Api) -> None:
    from machina.auth import Scope

    async with api.calls(await api.key(Scope.ADMIN, "other")) as other:
        assert (await upload(other, zipped(TEMPLATE))).status_code == 200
    store = api.resources.store
    assert await store.definitions.get("default", "workflow", "flow") is None
    assert await store.definitions.get("other", "workflow", "flow") is not None


async def test_a_push_is_refused_without_the_secret(api: Api, nobody: httpx.AsyncClient) -> None:
    path = "/system/templates-pushed"
    unset = await nobody.post(path, json={}, headers={"X-Webhook-Secret": SECRET})
    assert_problem(unset, 401, "unauthenticated")


async def test_a_push_with_the_secret_installs_what_changed(
    tmp_path: Path, redis_server: RedisServer, repository: str
) -> None:
    settings = make_settings(
        tmp_path / "data", redis_server.url, git_allow=("file",), webhook_secret=SECRET
    )
    path, push = "/system/templates-pushed", {"ref": "refs/heads/main"}
    async with running_api(settings) as api, api.calls(api.admin) as admin, api.calls() as nobody:
        await admin.post("/templates/git", json=[{"repo_url": repository, "repo_branch": "main"}])
        changed = {"templates/two/a.yml": "agent: {name: two, title: New}"}
        await asyncio.to_thread(commit, tmp_path / "r", changed)
        for wrong in (b"", b"wrong", "é".encode()):
            refused = await nobody.post(path, json=push, headers={b"X-Webhook-Secret": wrong})
            assert_problem(refused, 401, "unauthenticated")
        assert_problem(await nobody.post(path, json={"secret": 7}), 401, "unauthenticated")
        headers = {"X-Webhook-Secret": SECRET}
        body = push | {"commit": "abc", "changed_paths": ["templates/two/a.yml", 7]}
        answer = (await nobody.post(path, json=body, headers=headers)).json()
        (template,) = answer["data"]["results"]
        assert template["data"]["template"] == "templates/two"
        assert (answer["status"], answer["error"]) == (True, None)
        found = await api.resources.store.definitions.get("default", "agent", "two")
        assert found is not None
        assert found["title"] == "New"
        quiet = await nobody.post(path, json={"secret": SECRET, "ref": "refs/heads/x"})
        assert quiet.json()["data"]["results"] == []


async def test_too_many_installations_at_once_are_sent_away(
    api: Api, admin: httpx.AsyncClient
) -> None:
    templates: Templates = api.state["templates"]
    templates._present = MAX_WAITING + 1
    answer = await upload(admin, zipped(TEMPLATE))
    assert_problem(answer, 503, "install_busy")
    assert answer.headers["retry-after"] == "10"
    templates._present = 0


async def test_an_archive_as_large_as_the_form_allows_is_spooled_and_read(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    files: dict[str, Any] = dict(TEMPLATE)
    files["large.bin"] = json.dumps(list(range(400_000)))
    data = zipped(files, zipfile.ZIP_STORED)
    assert len(data) > 2_000_000
    settings = make_settings(tmp_path, redis_server.url)
    async with running_api(settings) as api, api.calls(api.admin) as admin:
        assert (await upload(admin, data)).status_code == 200

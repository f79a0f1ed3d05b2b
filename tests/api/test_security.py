"""Who comes in: keys in every header, scopes, and that everything is closed unless it is public."""

from __future__ import annotations

from pathlib import Path

import httpx

from machina.api.security import PUBLIC_PATHS
from machina.auth import Scope
from tests.api.harness import Api, assert_problem, make_settings, routes_of, running_api
from tests.services import RedisServer

SEARCH = "/execution/agent-search"


async def status_with(api: Api, *headers: tuple[str | bytes, str | bytes]) -> int:
    async with api.calls() as calls:
        raw = [
            (
                name if isinstance(name, bytes) else name.encode(),
                value if isinstance(value, bytes) else value.encode(),
            )
            for name, value in headers
        ]
        return (await calls.post(SEARCH, headers=raw)).status_code


def paths_and_methods(api: Api) -> list[tuple[str, str]]:
    """Every route of the app, also those the documentation does not show."""
    return [
        (route.path, method)
        for route in routes_of(api.app.routes)
        for method in sorted(route.methods or ())
    ]


async def test_every_route_is_closed_to_callers_without_a_valid_key(
    api: Api, nobody: httpx.AsyncClient
) -> None:
    revoked = await api.key()
    principal = await api.resources.keyring.verify(revoked)
    assert principal is not None
    await api.resources.keyring.revoke(principal.key_id)
    routes = paths_and_methods(api)
    assert len(routes) > 20
    closed = [(path, method) for path, method in routes if path not in PUBLIC_PATHS]
    assert len(closed) > 15
    unknown = "mk_00000000_" + "x" * 43
    for path, method in closed:
        for headers in ({}, {"X-Api-Token": unknown}, {"Authorization": f"Bearer {revoked}"}):
            answer = await nobody.request(method, path, headers=headers)
            assert_problem(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert await api.resources.attempts.records.count({}) == 0


async def test_paths_that_do_not_exist_are_closed_too(
    nobody: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    assert_problem(await nobody.get("/no/such/path"), 401, "unauthenticated")
    assert_problem(await nobody.get("/docs/"), 401, "unauthenticated")
    assert_problem(await client.get("/no/such/path"), 404, "not_found")


async def test_exactly_these_paths_are_public(nobody: httpx.AsyncClient) -> None:
    assert set(PUBLIC_PATHS) == {
        "/system/client-health-check",
        "/system/streaming-health",
        "/system/liveness",
        "/system/readiness",
        "/docs",
        "/openapi.json",
    }
    for path in PUBLIC_PATHS:
        assert (await nobody.get(path)).status_code == 200, path


async def test_a_key_is_read_from_every_header_that_clients_use(api: Api) -> None:
    key = api.client
    for headers in (
        [("X-Api-Token", key)],
        [("x-api-token", f"  {key}  ")],
        [("Authorization", f"Bearer {key}")],
        [("authorization", f"bearer   {key}")],
        [("X-Project-Token", key)],
        [("X-Session-Token", key)],
        [("X-Api-Token", "stale"), ("Authorization", f"Bearer {key}")],
        [("X-Api-Token", key), ("X-Session-Token", "eyJhbGciOi.some.jwt")],
        [("X-Api-Token", key), ("Authorization", f"Bearer {key}")],
        [("X-Api-Token", "stale"), ("X-Api-Token", key)],
    ):
        assert await status_with(api, *headers) == 200, headers


async def test_what_is_no_key_is_401_and_never_500(api: Api) -> None:
    key = api.client
    for headers in (
        [("X-Api-Token", "")],
        [("X-Api-Token", "caf\u00e9".encode("latin-1"))],
        [("X-Api-Token", key.encode() + b"\xff")],
        [("X-Api-Token", b"\xd9\xa3" * 20)],
        [("X-Api-Token", "x" * 20_000)],
        [("X-Api-Token", key[:-1])],
        [("X-Api-Token", key + "x")],
        [("X-Api-Token", key.upper())],
        [("X-Api-Token", f"{key},{key}")],
        [("Authorization", key)],
        [("Authorization", "Bearer")],
        [("Authorization", f"Basic {key}")],
        [("Authorization", b"Bearer \xff\xfe")],
        [("Cookie", f"X-Api-Token={key}")],
    ):
        assert await status_with(api, *headers) == 401, headers


async def test_two_valid_keys_of_different_callers_are_400(api: Api) -> None:
    async with api.calls(api.client) as calls:
        answer = await calls.post(SEARCH, headers={"Authorization": f"Bearer {api.admin}"})
    assert_problem(answer, 400, "ambiguous_keys")


async def test_a_key_in_the_url_is_not_a_key(api: Api, nobody: httpx.AsyncClient) -> None:
    answer = await nobody.post(f"{SEARCH}?api_key={api.client}&token={api.client}")
    assert_problem(answer, 401, "unauthenticated")


async def test_administration_needs_an_administrators_key(
    api: Api, client: httpx.AsyncClient, admin: httpx.AsyncClient
) -> None:
    path = "/system/circuit-breaker/reset/agent_streaming"
    assert_problem(await client.post(path), 403, "forbidden")
    assert (await admin.post(path)).status_code == 200
    elsewhere = await api.key(Scope.ADMIN, project="elsewhere")
    async with api.calls(elsewhere) as calls:
        assert (await calls.post(path)).status_code == 200


async def test_preflights_pass_without_a_key_for_the_named_origins_only(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    mine = "https://app.example"
    settings = make_settings(tmp_path, redis_server.url, cors_origins=(mine,))
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "X-Api-Token",
    }
    strange = ("https://evil.example", "null", f"{mine}.evil", "https://sub.app.example")
    async with running_api(settings) as api, api.calls() as calls:
        allowed = await calls.options(SEARCH, headers=preflight | {"Origin": mine})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == mine
        assert "access-control-allow-credentials" not in allowed.headers
        for origin in strange:
            refused = await calls.options(SEARCH, headers=preflight | {"Origin": origin})
            assert "access-control-allow-origin" not in refused.headers, origin
        answer = await calls.post(SEARCH, headers={"Origin": mine, "X-Api-Token": api.client})
        assert answer.headers["access-control-allow-origin"] == mine
        assert "X-Run-Id" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        unknown = await calls.post(SEARCH, headers={"Origin": mine})
        assert unknown.status_code == 401
        assert unknown.headers["access-control-allow-origin"] == mine, "a browser may read it"


async def test_without_the_setting_no_origin_is_allowed(api: Api) -> None:
    async with api.calls(api.client) as calls:
        answer = await calls.post(SEARCH, headers={"Origin": "https://app.example"})
        assert "access-control-allow-origin" not in answer.headers

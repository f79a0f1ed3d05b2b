"""Small answers for commands of the official CLI that are about the hosted service.

With its `api_url` pointing here, they do not send this server's key elsewhere (http-api.md 5). Of
the keys they show what is public, and the text of a new one once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path

from machina.api import hosted_examples as examples
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.envelopes import Answer, mail_date, one, page
from machina.api.examples import body as body_example
from machina.api.queries import read_search
from machina.api.security import Caller, require
from machina.auth import Principal, Scope
from machina.errors import Invalid, NotFound
from machina.store.keys import KeyRecord

router = APIRouter(tags=["Account"])

_ADMIN: Final = [Depends(require(Scope.ADMIN))]
_MAX_LABEL: Final = 200


@router.get("/login/session", summary="Whose key this is", responses=examples.SESSION_ANSWERS)
async def show_session(caller: Caller) -> Answer:
    """The caller as the CLI's `auth whoami` reads it."""
    name = f"{caller.scope} of {caller.project}"
    return one({"_id": caller.id, "name": name, "email": "", "scope": str(caller.scope)})


@router.post(
    "/user/projects/search",
    summary="The projects of the key",
    responses=examples.PROJECTS_ANSWERS,
    openapi_extra=body_example({"page": 1, "page_size": 10}),
)
async def search_projects(body: BodyDep, caller: Caller) -> Answer:
    """One: a key belongs to one project."""
    row = _organization(caller) | {
        "project_id": caller.project,
        "project_name": caller.project,
        "project_slug": caller.project,
        "status": "active",
    }
    return _page_of([row], body)


@router.post(
    "/user/organizations/search",
    summary="The organizations of the key",
    responses=examples.ORGANIZATIONS_ANSWERS,
    openapi_extra=body_example({"page": 1, "page_size": 10}),
)
async def search_organizations(body: BodyDep, caller: Caller) -> Answer:
    """One, named after the project: this server has no organizations."""
    return _page_of([_organization(caller)], body)


@router.get(
    "/organization/{organization}/client-api-status",
    summary="Whether the Client API answers",
    responses=examples.STATUS_ANSWERS,
)
@router.get(
    "/organization/{organization}/api-status",
    summary="Whether the API answers",
    responses=examples.STATUS_ANSWERS,
)
async def show_api_status(
    organization: Annotated[str, Path(description="Any organization.", examples=["default"])],
) -> Answer:
    """It does."""
    return one({"status": "online"})


@router.post(
    "/system/api/search-key",
    summary="The keys of the project",
    responses=examples.KEYS_ANSWERS,
    openapi_extra=body_example({"page": 1, "page_size": 10}),
    dependencies=_ADMIN,
)
async def search_keys(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """Newest first, by the beginnings of their texts: the rest is not stored. Needs an
    administrator's key.
    """
    keys = await resources.store.keys.list(caller.project)
    return _page_of([_key_row(key) for key in reversed(keys)], body)


@router.post(
    "/system/api/generate-key",
    summary="Make a key",
    responses=examples.GENERATE_ANSWERS,
    openapi_extra=body_example({"name": "web", "level": "client"}),
    dependencies=_ADMIN,
)
async def generate_key(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """A key of the caller's project, a client's unless `level` is `admin`. Its text is in this
    answer and nowhere else. Needs an administrator's key.
    """
    name = body.get("name") or ""
    if not isinstance(name, str) or len(name) > _MAX_LABEL or not name.isprintable():
        raise Invalid(f"'name' is text of at most {_MAX_LABEL} characters.", field="name")
    scope = Scope.ADMIN if body.get("level") == "admin" else Scope.CLIENT
    text, made = await resources.keyring.create(scope, project=caller.project, name=name)
    return one({"_id": made.key_id, "name": name, "api_key": text, "level": str(scope)})


@router.post(
    "/system/api/revoke-key",
    summary="Revoke a key",
    responses=examples.REVOKE_ANSWERS,
    openapi_extra=body_example({"api_key_id": examples.KEY_ID}),
    dependencies=_ADMIN,
)
async def revoke_key(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """Ends a key of the caller's project; every process refuses it within seconds. Needs an
    administrator's key.
    """
    key_id = body.get("api_key_id")
    if not isinstance(key_id, str):
        raise Invalid("Name the key under 'api_key_id'.", field="api_key_id")
    if not await resources.store.keys.revoke(key_id, project=caller.project):
        raise NotFound("There is no such key, or it was revoked before.", field="api_key_id")
    await resources.keyring.revoke(key_id)  # this process forgets it at once
    return one({"_id": key_id}, "key revoked")


def _organization(caller: Principal) -> dict[str, Any]:
    return {
        "organization_id": caller.project,
        "organization_name": caller.project,
        "organization_slug": caller.project,
    }


def _key_row(key: KeyRecord) -> dict[str, Any]:
    return {
        "_id": key["_id"],
        "name": key["name"],
        "key": f"mk_{key['prefix']}_…",
        "level": key["scope"],
        "created": mail_date(key["created"]),
        "status": "active" if key["revoked"] is None else "revoked",
    }


def _page_of(rows: list[dict[str, Any]], body: Mapping[str, Any]) -> Answer:
    query = read_search(body)
    shown = rows[query.skip : query.skip + query.page_size]
    return page(shown, total=len(rows), page=query.page, page_size=query.page_size)

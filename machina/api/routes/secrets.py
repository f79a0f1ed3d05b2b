"""Secrets: an administrator puts values in; only names ever come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path

from machina.api import secret_examples as examples
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.envelopes import Answer, mail_date, one, page
from machina.api.examples import body as body_example
from machina.api.queries import SearchQuery, read_search
from machina.api.security import Caller, require
from machina.auth import Principal, Scope
from machina.errors import Invalid, NotFound
from machina.resources import Resources
from machina.store.secrets import SecretName, check_secret_name

router = APIRouter(
    prefix="/secrets", tags=["Secrets"], dependencies=[Depends(require(Scope.ADMIN))]
)

NamePath = Annotated[
    str, Path(description="Name of the secret.", examples=["TEMP_CONTEXT_VARIABLE_WEATHER"])
]
_MAX_NAMES = 1_000


@router.post(
    "",
    summary="Keep a secret",
    responses=examples.PUT_ANSWERS,
    openapi_extra=body_example(examples.SECRET_BODY),
)
async def put_secret(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """Keeps the value under the name, over the one that was there. Needs an administrator's key.

    The name is the one that templates use, with or without its `$`; the value stands under `key`
    or `value`. It is encrypted before it is stored and never shown again.
    """
    name = check_secret_name(body.get("name"))
    created = await resources.store.secrets.put(caller.project, name, _value_of(body))
    return one({"name": name}, "secret saved" if created else "secret updated")


@router.get("", summary="The names of all secrets", responses=examples.SEARCH_ANSWERS)
async def list_secrets(caller: Caller, resources: ResourcesDep) -> Answer:
    """Names and dates, by name. Needs an administrator's key."""
    return await _search(read_search({"page_size": 5_000, "sort": "name"}), caller, resources)


@router.post(
    "/search",
    summary="Search the names of secrets",
    responses=examples.SEARCH_ANSWERS,
    openapi_extra=body_example({"filters": {"name": {"$regex": "^TEMP_"}}, "page_size": 100}),
)
async def search_secrets(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """By `_id`, `name`, `created` and `updated`; values cannot be searched. Needs an
    administrator's key.
    """
    return await _search(read_search(body), caller, resources)


@router.post(
    "/check",
    summary="Whether secrets are there",
    responses=examples.CHECK_ANSWERS,
    openapi_extra=body_example({"names": ["TEMP_CONTEXT_VARIABLE_WEATHER"]}),
)
async def check_secrets(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """For each name under `names` (or the one under `name`) whether the vault has it, and those
    it has not under `missing`. Needs an administrator's key.
    """
    checked = await resources.store.secrets.check(caller.project, _names_of(body))
    missing = [name for name, present in checked.items() if not present]
    return one({"secrets": checked, "missing": missing, "exists": not missing})


@router.post(
    "/delete",
    summary="Delete a secret by the name in the body",
    responses=examples.DELETE_ANSWERS,
    openapi_extra=body_example({"name": "TEMP_CONTEXT_VARIABLE_WEATHER"}),
)
async def delete_named_secret(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """The same as DELETE, for callers that only send bodies. Needs an administrator's key."""
    return await _delete(check_secret_name(body.get("name")), caller, resources)


@router.delete("/{name}", summary="Delete a secret", responses=examples.DELETE_ANSWERS)
async def delete_secret(name: NamePath, caller: Caller, resources: ResourcesDep) -> Answer:
    """Runs that begin afterwards do not have it. Needs an administrator's key."""
    return await _delete(name, caller, resources)


async def _delete(name: str, caller: Principal, resources: Resources) -> Answer:
    if not await resources.store.secrets.delete(caller.project, name):
        raise NotFound("There is no secret of this name.", field="name")
    return one({"name": name.removeprefix("$")}, "secret deleted")


async def _search(query: SearchQuery, caller: Principal, resources: Resources) -> Answer:
    secrets, total = await resources.store.secrets.names(
        caller.project, query.filters, sort=query.sort, skip=query.skip, limit=query.page_size
    )
    rows = [query.project(_row(secret)) for secret in secrets]
    return page(rows, total=total, page=query.page, page_size=query.page_size)


def _row(secret: SecretName) -> dict[str, Any]:
    created = mail_date(secret.created)
    return {
        "_id": secret.id,
        "id": secret.id,
        "name": secret.name,
        "created": created,
        "updated": mail_date(secret.updated),
        "date": created,
    }


def _value_of(body: Mapping[str, Any]) -> str:
    """The value, an object as its JSON; never quoted in an error, whatever it is."""
    given = [body[field] for field in ("value", "key") if body.get(field) is not None]
    if len(given) == 1 and isinstance(given[0], dict):
        return orjson.dumps(given[0]).decode()
    if len(given) != 1 or not isinstance(given[0], str):
        raise Invalid("Send the secret's value as text, under 'key' or 'value'.", field="value")
    return given[0]


def _names_of(body: Mapping[str, Any]) -> list[str]:
    names = body.get("names", body.get("secrets", body.get("name")))
    if isinstance(names, str):
        names = [names]
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= _MAX_NAMES
        or not all(isinstance(name, str) for name in names)
    ):
        raise Invalid(f"'names' must be a list of 1 to {_MAX_NAMES} names.", field="names")
    return names

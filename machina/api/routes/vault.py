"""The check of a project manifest's credentials: is each there, and has it the right form?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from fastapi import APIRouter, Depends

from machina.api import secret_examples as examples
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.envelopes import Answer, one
from machina.api.examples import body as body_example
from machina.api.security import Caller, require
from machina.auth import Scope
from machina.errors import Invalid
from machina.store.secrets import check_secret_name

router = APIRouter(prefix="/vault", tags=["Secrets"], dependencies=[Depends(require(Scope.ADMIN))])

_MAX_CREDENTIALS: Final = 200


@router.post(
    "/validate",
    summary="Check credentials against a manifest",
    responses=examples.VALIDATE_ANSWERS,
    openapi_extra=body_example(examples.VALIDATE_BODY),
)
async def validate_credentials(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """For each of `required_credentials` as a project manifest lists them (or of `names`) whether
    the vault has it and whether its value has the form that `validation` asks for. Needs an
    administrator's key.

    `valid` is null for a check over HTTP: this server sends no secret to an address in a request.
    It is false for a secret that is there and that no key of this server opens.
    """
    asked = _credentials(body)
    secrets = resources.store.secrets
    present = await secrets.check(caller.project, [name for name, _ in asked])
    values = await secrets.values(caller.project)
    rows = [
        {"name": name, "present": present[name], "valid": _is_valid(values.get(name), validation)}
        for name, validation in asked
    ]
    valid = all(row["valid"] is not False for row in rows)
    return one({"credentials": rows, "valid": valid})


def _credentials(body: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    listed = body.get("required_credentials", body.get("credentials"))
    if listed is None:
        names = body.get("names", body.get("name"))
        names = [names] if isinstance(names, str) else names
        listed = [{"name": name} for name in names] if isinstance(names, list) else None
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_CREDENTIALS:
        raise Invalid(
            f"'required_credentials' must be a list of 1 to {_MAX_CREDENTIALS} objects with a "
            "'name'.",
            field="required_credentials",
        )
    return [_credential(item) for item in listed]


def _credential(item: Any) -> tuple[str, Mapping[str, Any]]:
    fields = item if isinstance(item, dict) else {}
    validation = fields.get("validation")
    return check_secret_name(fields.get("name")), validation if isinstance(validation, dict) else {}


def _is_valid(value: str | None, validation: Mapping[str, Any]) -> bool | None:
    """Whether a value has the form; None where that cannot be told. No value has none."""
    type = validation.get("type")
    if value is not None and type == "http":
        return None
    if value is not None and type == "json_object":
        return _is_object(value, validation.get("required_keys"))
    return bool(value and value.strip())


def _is_object(value: str, keys: Any) -> bool:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    required = keys if isinstance(keys, list) else []
    return isinstance(found, dict) and all(key in found for key in map(str, required))

"""What the documentation shows of the answers for the CLI's commands on the hosted service."""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.api.examples import Responses, answer, page_example, refusals
from machina.api.problems import UnsupportedMediaType

KEY_ID: Final = "692431f0a1b2c3d4e5000003"
_ORGANIZATION: Final = {
    "organization_id": "default",
    "organization_name": "default",
    "organization_slug": "default",
}
_PROJECT: Final = _ORGANIZATION | {
    "project_id": "default",
    "project_name": "default",
    "project_slug": "default",
    "status": "active",
}
_KEY_ROW: Final[dict[str, Any]] = {
    "_id": KEY_ID,
    "name": "web",
    "key": "mk_1a2b3c4d_…",
    "level": "client",
    "created": "Mon, 24 Nov 2026 12:00:00 GMT",
    "status": "active",
}

_BODY: Final = (errors.TooLarge, UnsupportedMediaType, errors.Invalid)
_READ: Final = refusals(errors.Unauthenticated, *_BODY)
_WRITE: Final = refusals(errors.Unauthenticated, errors.Forbidden, *_BODY, errors.StoreDown)

SESSION_ANSWERS: Final[Responses] = {
    200: answer(
        "The caller.",
        {
            "data": {
                "_id": KEY_ID,
                "name": "admin of default",
                "email": "",
                "scope": "admin",
            },
            "status": True,
        },
    ),
    **refusals(errors.Unauthenticated),
}
PROJECTS_ANSWERS: Final[Responses] = {
    200: answer("The project.", page_example(_PROJECT), "Page"),
    **_READ,
}
ORGANIZATIONS_ANSWERS: Final[Responses] = {
    200: answer("The organization.", page_example(_ORGANIZATION), "Page"),
    **_READ,
}
STATUS_ANSWERS: Final[Responses] = {
    200: answer("It answers.", {"data": {"status": "online"}, "status": True}),
    **refusals(errors.Unauthenticated, errors.Invalid),
}
KEYS_ANSWERS: Final[Responses] = {
    200: answer("The keys.", page_example(_KEY_ROW), "Page"),
    **_WRITE,
}
GENERATE_ANSWERS: Final[Responses] = {
    200: answer(
        "The key, shown once.",
        {
            "data": {
                "_id": KEY_ID,
                "name": "web",
                "api_key": "mk_1a2b3c4d_…",
                "level": "client",
            },
            "status": True,
        },
    ),
    **_WRITE,
}
REVOKE_ANSWERS: Final[Responses] = {
    200: answer(
        "The key is revoked.",
        {"data": {"_id": KEY_ID}, "message": "key revoked", "status": True},
    ),
    **_WRITE,
    **refusals(errors.NotFound),
}

"""What the documentation shows of the routes of secrets."""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.api.definition_examples import ID
from machina.api.examples import Responses, answer, page_example, refusals
from machina.api.problems import UnsupportedMediaType

_NAME: Final = "TEMP_CONTEXT_VARIABLE_WEATHER"
_DATE: Final = "Mon, 24 Nov 2026 12:00:00 GMT"
_ROW: Final = {
    "_id": ID,
    "id": ID,
    "name": _NAME,
    "created": _DATE,
    "updated": _DATE,
    "date": _DATE,
}
SECRET_BODY: Final = {"name": _NAME, "key": "the value"}

_KEY: Final = (errors.Unauthenticated, errors.Forbidden, errors.StoreDown)
_BODY: Final = (errors.TooLarge, UnsupportedMediaType, errors.Invalid)


def _named(message: str) -> dict[str, Any]:
    return {"data": {"name": _NAME}, "message": message, "status": True}


PUT_ANSWERS: Final[Responses] = {
    200: answer("The secret is kept.", _named("secret saved")),
    **refusals(*_KEY, *_BODY, errors.VaultLocked),
}
SEARCH_ANSWERS: Final[Responses] = {
    200: answer("Names and dates.", page_example(_ROW), "Page"),
    **refusals(*_KEY, *_BODY),
}
CHECK_ANSWERS: Final[Responses] = {
    200: answer(
        "What the vault has.",
        {"data": {"secrets": {_NAME: True}, "missing": [], "exists": True}, "status": True},
    ),
    **refusals(*_KEY, *_BODY),
}
VALIDATE_BODY: Final[dict[str, Any]] = {
    "required_credentials": [{"name": _NAME, "validation": {"type": "non_empty_string"}}]
}
VALIDATE_ANSWERS: Final[Responses] = {
    200: answer(
        "How each of them is.",
        {
            "data": {
                "credentials": [{"name": _NAME, "present": True, "valid": True}],
                "valid": True,
            },
            "status": True,
        },
    ),
    **refusals(*_KEY, *_BODY),
}
DELETE_ANSWERS: Final[Responses] = {
    200: answer("The secret is gone.", _named("secret deleted")),
    **refusals(*_KEY, *_BODY, errors.NotFound),
}

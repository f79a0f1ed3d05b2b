"""What the documentation shows of the routes of documents."""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.api.examples import Responses, answer, page_example, refusals
from machina.api.problems import UnsupportedMediaType

ID: Final = "692431f0a1b2c3d4e5000002"
_DATE: Final = "Mon, 24 Nov 2026 12:00:00 GMT"

DOCUMENT_BODY: Final[dict[str, Any]] = {
    "name": "thread",
    "value": {"messages": [{"role": "user", "content": "Hello"}], "status": "idle"},
    "metadata": {"language": "en"},
    "status": "active",
}
SEARCH_BODY: Final = {
    "filters": {"name": "thread", "metadata.language": "en"},
    "sorters": ["_id", -1],
    "page": 1,
    "page_size": 10,
}
_ROW: Final = {
    "_id": ID,
    **DOCUMENT_BODY,
    "id": ID,
    "created": _DATE,
    "updated": _DATE,
    "date": _DATE,
}
_KEY: Final = (errors.Unauthenticated, errors.StoreDown)
_BODY: Final = (errors.TooLarge, UnsupportedMediaType, errors.Invalid)


def _with_message(message: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"data": data, "message": message, "status": True}


SEARCH_ANSWERS: Final[Responses] = {
    200: answer("One page of documents.", page_example(_ROW), "Page"),
    **refusals(*_KEY, *_BODY),
}
RETRIEVE_ANSWERS: Final[Responses] = {
    200: answer("The document; a page of them without an id.", {"data": _ROW, "status": True}),
    **refusals(*_KEY, *_BODY, errors.NotFound),
}
CREATE_ANSWERS: Final[Responses] = {
    200: answer("The whole document.", _with_message("document saved", _ROW)),
    **refusals(*_KEY, *_BODY),
}
READ_ANSWERS: Final[Responses] = {
    200: answer("The document.", {"data": _ROW, "status": True}),
    **refusals(*_KEY, errors.NotFound, errors.Invalid),
}
UPDATE_ANSWERS: Final[Responses] = {
    200: answer("The whole document.", _with_message("document updated", _ROW)),
    **refusals(*_KEY, *_BODY, errors.NotFound, errors.Conflict),
}
DELETE_ANSWERS: Final[Responses] = {
    200: answer("The document is gone.", _with_message("document deleted", {"_id": ID, "id": ID})),
    **refusals(*_KEY, errors.NotFound, errors.Invalid),
}

"""The shapes of successful answers: one object, a page of rows, and dates as clients parse them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import orjson
from starlette.responses import Response

from machina.events import encode_json


class Answer(Response):
    """JSON of a successful answer. Never cached: it belongs to the key that asked."""

    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200) -> None:
        super().__init__(content, status_code, {"Cache-Control": "no-store"})

    def render(self, content: Any) -> bytes:
        """Encodes what a record can hold; values that JSON does not know become text."""
        try:
            return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:
            return encode_json(content)


def one(data: Mapping[str, Any], message: str | None = None) -> Answer:
    """The envelope of a single object; `status` is the truth value that clients compare with."""
    extra = {} if message is None else {"message": message}
    return Answer({"data": data} | extra | {"status": True})


def page(rows: Sequence[Mapping[str, Any]], *, total: int, page: int, page_size: int) -> Answer:
    """The envelope of a search: a flat list, and the total under every name that clients read."""
    return Answer(
        {
            "data": rows,
            "status": True,
            "total_documents": total,
            "total": total,
            "pagination": {
                "page": page,
                "page_size": page_size,
                "total": total,
                "total_documents": total,
            },
        }
    )


def mail_date(moment: datetime | None) -> str | None:
    """`Tue, 03 Feb 2026 08:15:00 GMT`: the only form that every client parses."""
    return None if moment is None else format_datetime(moment.astimezone(UTC), usegmt=True)

"""A request's JSON: read whole, parsed with limits on depth, size and numbers."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from starlette.requests import Request

from machina.api.problems import UnsupportedMediaType
from machina.errors import Invalid, TooLarge

MAX_DEPTH: Final = 64
MAX_KEYS: Final = 10_000
MAX_DIGITS: Final = 100

_LONG_RUN: Final = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
"""A string of valid JSON; on anything else it would look for the end again and again."""
_JSON_TYPE: Final = re.compile(r"application/([a-z0-9.-]+\+)?json\s*(;|$)", re.IGNORECASE)


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object.

    The content type decides nothing while the body parses: clients and `curl -d` send all kinds.

    Raises:
        Invalid: not JSON, or not an object.
        TooLarge: longer, deeper or with more keys than a body may be.
        UnsupportedMediaType: not JSON, and not said to be.
    """
    value = await read_json(request)
    if not isinstance(value, dict):
        raise Invalid(
            f"The body is a JSON {_name_of(value)}; send an object, as {{}}.", code="invalid_body"
        )
    return value


async def read_json(request: Request) -> Any:
    """The body as JSON of any type; an empty body is an empty object. Raises as `read_object`."""
    raw = (await request.body()).removeprefix(b"\xef\xbb\xbf")
    if not raw.strip():
        return {}
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as broken:
        raise _not_json(request, broken) from None
    if _LONG_RUN.search(raw) and _LONG_RUN.search(_STRING.sub(b"", raw)):
        raise TooLarge(f"A number in the body has more than {MAX_DIGITS} digits; send it as text.")
    _check_size(value)
    return value


def _not_json(request: Request, broken: orjson.JSONDecodeError) -> Exception:
    content_type = request.headers.get("content-type")
    if content_type and not _JSON_TYPE.match(content_type):
        return UnsupportedMediaType(
            f"A body of type '{content_type[:80]}' is not read here; send JSON as application/json."
        )
    return Invalid(
        f"The body is not JSON: {broken.msg}, line {broken.lineno}, column {broken.colno}.",
        code="invalid_body",
    )


def _check_size(value: Any) -> None:
    """Walks level by level: no recursion, and it stops at the first limit."""
    keys, level = 0, [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                keys += len(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if keys > MAX_KEYS:
            raise TooLarge(f"The body has more than {MAX_KEYS} keys; send it in smaller parts.")
        level = [item for item in below if isinstance(item, dict | list)]
        if not level:
            return
    raise TooLarge(f"The body is nested deeper than {MAX_DEPTH} levels; flatten it.")


def _name_of(value: Any) -> str:
    names = {list: "list", str: "text", bool: "truth value", type(None): "null"}
    return names.get(type(value), "number")

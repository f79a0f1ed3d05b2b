"""What an HTTP answer means for the task: data, or a failure that gives nothing away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.redacting import redactor_for
from machina.egress import EgressResponse
from machina.errors import ConnectorFailed, EgressFailed
from machina.observability.redaction import MASK

MAX_DEPTH: Final = 100
"""Of JSON in an answer. Our own encoder gives up at 254."""
EXCERPT: Final = 400
"""Characters of the body in a message."""
_READ_FOR_EXCERPT: Final = 16_000
_LARGE: Final = 256 * 1024
_NO_JSON: Final = ("text/html", "text/csv", "text/xml", "application/xml")
_CHARSET: Final = re.compile(r"charset=\"?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)
_SECRET_LIKE: Final = re.compile(
    r"(?i)((?:\b(?:bearer|basic)\s+|(?:api[-_]?key|token|secret|password|authorization)"
    r"[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?))[^\s\"'&,;}]{4,}"
)
_CODES: Final = {
    "egress_refused": "egress_refused",
    "egress_timeout": "connector_timeout",
}


async def read_reply(response: EgressResponse, call: ConnectorCall) -> ConnectorReply:
    """The parsed JSON, else the text; null for an empty answer.

    Raises:
        ConnectorFailed: `connector_failed`, the status is none of 2xx or the JSON is too deep.
    """
    if not 200 <= response.status < 300:
        raise _refused(response, call)
    body, kind = response.body, response.headers.get("content-type", "")
    if len(body) > _LARGE:
        data = await asyncio.to_thread(_parse, body, kind, call)
    else:
        data = _parse(body, kind, call)
    return ConnectorReply(data, {"status": True})


@contextmanager
def failures_of(call: ConnectorCall) -> Iterator[None]:
    """Turns what goes wrong while a request is made and sent into the failure of its task.

    Raises:
        ConnectorFailed: `egress_refused`, `connector_timeout` or `connector_failed`.
    """
    try:
        yield
    except EgressFailed as error:
        raise ConnectorFailed(
            f"Connector '{call.name}', called by {call.where}, failed: {error.message}",
            code=_CODES.get(error.code, "connector_failed"),
            retryable=error.retryable,
        ) from None
    except UnicodeError:
        raise ConnectorFailed(
            f"{call.where} gives connector '{call.name}' a text that cannot be sent: it holds "
            "half a character."
        ) from None


def _parse(body: bytes, kind: str, call: ConnectorCall) -> Any:
    plain = body.removeprefix(b"\xef\xbb\xbf").strip()
    if not plain:
        return None
    is_container = plain[:1] in (b"{", b"[")
    if is_container or not kind.lower().startswith(_NO_JSON):
        try:
            data = orjson.loads(plain)
        except ValueError:
            return _text(body, kind)
        if is_container:
            _check_depth(plain, data, call)
        return data
    return _text(body, kind)


def _text(body: bytes, kind: str) -> str:
    charset = _CHARSET.search(kind)
    if charset is not None:
        try:
            return body.decode(charset[1], errors="replace")
        except LookupError:
            pass  # a name nobody knows: read it as what most are
    return body.decode("utf-8-sig", errors="replace")


def _check_depth(plain: bytes, data: Any, call: ConnectorCall) -> None:
    if plain.count(b"[") + plain.count(b"{") <= MAX_DEPTH:
        return
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for node in level
            for part in (node.values() if type(node) is dict else node)
            if type(part) in (dict, list)
        ]
        if not level:
            return
    raise ConnectorFailed(
        f"Connector '{call.name}', called by {call.where}, answered with JSON that is nested "
        f"deeper than {MAX_DEPTH} levels."
    )


def _refused(response: EgressResponse, call: ConnectorCall) -> ConnectorFailed:
    kind = response.headers.get("content-type", "")
    excerpt = redact(_text(response.body[:_READ_FOR_EXCERPT], kind), call)
    if len(excerpt) > EXCERPT:
        excerpt = f"{excerpt[:EXCERPT]}…"
    said = f": {excerpt}" if excerpt else " and said nothing else"
    return ConnectorFailed(
        f"Connector '{call.name}', called by {call.where}, answered '{call.command}' with HTTP "
        f"{response.status}{said}",
        details={"http_status": response.status},
        retryable=response.status == 429 or response.status >= 500,
    )


def redact(text: str, call: ConnectorCall) -> str:
    """A foreign text on one line, without the call's credentials and what looks like one."""
    redactor = redactor_for(call)
    text = text[: len(text) - redactor.open_end(text)]
    text = _SECRET_LIKE.sub(rf"\1{MASK}", redactor.text(text))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

"""Encodes the body of a request by the content type that the operation declares."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from machina.connectors.rest.files import Attachment, read_attachment
from machina.connectors.rest.texts import encode_query, flat_pairs, json_of, text_of
from machina.errors import ConnectorFailed

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"
MAX_UPLOAD: Final = 32 * 1024 * 1024
"""Bytes of all files of one request."""
_QUOTED: Final = re.compile(r'[\r\n"\\\x00]')


async def encode_body(
    body: Any, content_types: Sequence[str], directory: Path | None, where: str
) -> tuple[bytes, str]:
    """The bytes and their content type. `directory` is the run's own: files come from there only.

    Raises:
        ConnectorFailed: `connector_failed`, the body does not fit its type or a file is not there.
    """
    chosen = _choose(content_types)
    kind = chosen.partition(";")[0].strip().lower()
    if kind == FORM and isinstance(body, Mapping):
        pairs = [pair for name, value in body.items() for pair in flat_pairs(str(name), value)]
        return encode_query(pairs).encode(), FORM
    if kind == MULTIPART and isinstance(body, Mapping):
        return await _multipart(body, directory, where)
    if kind in (FORM, MULTIPART) and not isinstance(body, str):
        raise ConnectorFailed(f"The body of {where} must be a dictionary, as it is sent as {kind}.")
    if _is_json(kind):
        return _json(body), chosen
    return (text_of(body).encode() if not isinstance(body, bytes) else body), chosen


def _choose(content_types: Sequence[str]) -> str:
    """JSON where it is allowed, else what is declared first; JSON when nothing is."""
    for declared in content_types:
        if _is_json(declared.partition(";")[0].strip().lower()):
            return declared
    first = content_types[0] if content_types else JSON
    return JSON if "*" in first else first


def _is_json(kind: str) -> bool:
    return kind == JSON or kind.endswith("+json")


def _json(body: Any) -> bytes:
    """JSON; a text that is JSON already is sent as it is."""
    if isinstance(body, str) and body.lstrip()[:1] in ("{", "["):
        try:
            orjson.loads(body)
        except ValueError:
            return json_of(body)
        return body.encode()
    return json_of(body)


async def _multipart(
    body: Mapping[str, Any], directory: Path | None, where: str
) -> tuple[bytes, str]:
    boundary = f"machina-{secrets.token_hex(16)}"
    parts = bytearray()
    left = MAX_UPLOAD
    for name, value in body.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, str) and item.startswith("@"):
                file = await asyncio.to_thread(read_attachment, item[1:], directory, left, where)
                left -= len(file.content)
                parts += _part(boundary, str(name), file.content, file)
            else:
                parts += _part(boundary, str(name), text_of(item).encode(), None)
    parts += f"--{boundary}--\r\n".encode()
    return bytes(parts), f"{MULTIPART}; boundary={boundary}"


def _part(boundary: str, name: str, content: bytes, file: Attachment | None) -> bytes:
    disposition = f'form-data; name="{_quote(name)}"'
    kind = ""
    if file is not None:
        disposition += f'; filename="{_quote(file.name)}"'
        kind = f"Content-Type: {file.kind}\r\n"
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n{kind}\r\n"
    return head.encode() + content + b"\r\n"


def _quote(text: str) -> str:
    """A name in a header of a part, as browsers write it."""
    return _QUOTED.sub(lambda match: f"%{ord(match[0]):02X}", text)

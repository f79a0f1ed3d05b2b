"""Values as the texts that URLs, headers and forms carry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from typing import Any
from urllib.parse import quote

import orjson

from machina.errors import ConnectorFailed


def text_of(value: Any) -> str:
    """A scalar as text: `true`, `12`, `2.5`; containers as compact JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return json_of(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)


def json_of(value: Any) -> bytes:
    """Compact JSON; what JSON does not know, such as dates, is text."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # integers beyond 64 bits, lone surrogates, nesting without end
        raise ConnectorFailed(
            "An input of the connector cannot be written as JSON: its numbers are too large, its "
            "texts are broken or it is nested too deeply."
        ) from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, set | frozenset) else str(value)


def encode_path(value: str) -> str:
    """A path segment; `:` stays, as identifiers such as `ns:item:5` need it."""
    return quote(value, safe=":")


def encode_query(pairs: list[tuple[str, str]]) -> str:
    """`a=b&c=d`, percent-encoded, blanks as %20."""
    return "&".join(f"{quote(name, safe='')}={quote(text, safe=':,')}" for name, text in pairs)


def flat_pairs(name: str, value: Any) -> list[tuple[str, str]]:
    """A value of a query or a form: nulls left out, lists once per item."""
    if value is None:
        return []
    if isinstance(value, list | tuple | set | frozenset):
        return [(name, text_of(item)) for item in value if item is not None]
    return [(name, text_of(value))]

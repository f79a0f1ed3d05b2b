"""How the context variables of a connector become the authentication of a request."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from machina.connectors.rest.model import Operation, Scheme
from machina.connectors.rest.texts import text_of

_SCHEMED: Final = re.compile(r"(bearer|basic|token|apikey|api-key|digest) +\S", re.IGNORECASE)
_BEARER: Final = re.compile(r"bearer +\S", re.IGNORECASE)


class Fields:
    """Context variables by name, whatever the case of its letters; nulls count as not there."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._exact: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        for name, value in fields.items():
            # A line end behind a key comes from the file it was pasted from.
            text = text_of(value).strip() if value is not None else ""
            if text:
                self._exact[name] = text
                self._folded.setdefault(name.lower(), text)

    def first(self, *names: str) -> str | None:
        """The value of the first of these names that there is."""
        for name in names:
            found = self._exact.get(name) or self._folded.get(name.lower())
            if found is not None:
                return found
        return None

    def header_like(self) -> dict[str, str]:
        """The fields that look like headers: `authorization` and `x-…`."""
        return {
            name: text
            for name, text in self._exact.items()
            if name.lower() == "authorization" or name.lower().startswith("x-")
        }


@dataclass(slots=True)
class Authentication:
    """What is added to a request."""

    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, name: str, value: str) -> None:
        """A key at its place."""
        target = {"query": self.query, "cookie": self.cookies}.get(place, self.headers)
        target[name] = value


def authenticate(
    schemes: Iterable[Scheme],
    operation: Operation | None,
    credentials: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
) -> Authentication:
    """The authentication of one call.

    The schemes that the operation asks for count first, in the first combination that has all its
    values; else every scheme that has one. Where no scheme matches, fields that look like headers
    are sent as such.
    """
    fields, passed = Fields(credentials), Fields(inputs or {})
    ready = {
        scheme.id: (scheme, value)
        for scheme in schemes
        if (value := _value(scheme, fields, passed)) is not None
    }
    chosen = _chosen(operation, ready)
    authentication = Authentication()
    for identifier in chosen:
        scheme, value = ready[identifier]
        authentication.add(scheme.place, scheme.name, value)
    if not chosen:
        authentication.headers.update(fields.header_like())
    return authentication


def _chosen(operation: Operation | None, ready: Mapping[str, Any]) -> Iterable[str]:
    for alternative in operation.security if operation is not None else ():
        if all(identifier in ready for identifier in alternative):
            return alternative
    return tuple(ready)


def _value(scheme: Scheme, fields: Fields, passed: Fields) -> str | None:
    """The text to send for a scheme; None when the context variables do not have it."""
    if scheme.kind == "key":
        return fields.first(scheme.name, scheme.id, "api_key")
    if scheme.kind == "params":
        return fields.first(scheme.name, "api_key") or passed.first(scheme.name)
    if scheme.kind == "basic":
        return _basic(fields)
    if scheme.kind == "bearer":
        return _bearer(scheme, fields)
    return fields.first(scheme.id, "authorization")


def _bearer(scheme: Scheme, fields: Fields) -> str | None:
    value = fields.first(scheme.id)
    if value is None:
        value = fields.first("authorization")
        if value is not None and _SCHEMED.match(value):
            return value  # a whole header, of whatever kind
    value = value or fields.first("api_key", "access_token", "token")
    if value is None or _BEARER.match(value):
        return value
    return f"Bearer {value}"


def _basic(fields: Fields) -> str | None:
    username, password = fields.first("username"), fields.first("password")
    if username is None:
        return None
    pair = f"{username}:{password or ''}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"

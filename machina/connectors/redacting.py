"""Hides the credentials of one call in texts that come from elsewhere: answers, errors, output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from machina.connectors.base import ConnectorCall
from machina.observability.redaction import Redactor


def redactor_for(call: ConnectorCall) -> Redactor:
    """Knows every value in the call's credentials, however deep it lies, and in its headers."""
    known = Redactor()
    for name, value in _leaves([call.credentials, call.block.get("headers")]):
        known.learn(name, str(value))
    return known


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, str(key))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part, name)
    elif value is not None and not isinstance(value, bool):
        yield name, value

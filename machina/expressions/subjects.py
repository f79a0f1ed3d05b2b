"""Results that answer `$.get` by rules of their own: connector results and free text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from machina.expressions.scope import MISSING, lookup

_ANSWER_KEYS = frozenset({"content", "text", "response", "result", "message"})
_MAX_JSON = 2_000_000  # characters


class ConnectorResult:
    """`$` in the outputs of a connector task: the envelope's `data`, unwrapped one level.

    Authors write for both shapes. So a key that `data` lacks is looked for in the envelope
    around it, and `data` itself can still be asked for by name.
    """

    __slots__ = ("_data", "_envelope")

    def __init__(self, envelope: Mapping[str, Any]) -> None:
        self._envelope = envelope
        self._data = envelope.get("data")

    @property
    def value(self) -> Any:
        """A bare `$`: plain `data`."""
        return self._data

    def get(self, key: Any, default: Any = None) -> Any:
        """Looks into `data`, then, when that is an object or absent, into the envelope."""
        data = self._data
        if data is not None and not isinstance(data, Mapping):
            return data if key == "data" else default
        found = MISSING if data is None else lookup(data, key, MISSING)
        if found is not MISSING:
            return found
        if key == "data":
            return default if data is None else data
        return lookup(self._envelope, key, default)


class FreeText(str):
    """A model's answer in free text: a text with a tolerant `get`.

    A JSON object in the text is looked into first. Else `choices` imitates a chat completion,
    and the usual names for an answer give the text. A bare `$` is an ordinary `str`.
    """

    __slots__ = ("_parsed",)
    _parsed: dict[str, Any]

    @property
    def value(self) -> str:
        """The text as an ordinary `str`, fit to be stored."""
        return str.__str__(self)

    def get(self, key: Any, default: Any = None) -> Any:
        """Looks into the JSON object that the text is, then answers for the usual names."""
        found = lookup(self._object(), key, MISSING)
        if found is not MISSING:
            return found
        if key == "choices":
            return [{"message": {"role": "assistant", "content": self.value}}]
        return self.value if key in _ANSWER_KEYS else default

    def _object(self) -> dict[str, Any]:
        try:
            return self._parsed
        except AttributeError:
            self._parsed = _json_object(self.value)
            return self._parsed


def _json_object(text: str) -> dict[str, Any]:
    if len(text) > _MAX_JSON or not text.lstrip().startswith("{"):
        return {}
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return parsed if type(parsed) is dict else {}

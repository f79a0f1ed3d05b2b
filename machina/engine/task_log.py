"""What a run tells about its tasks afterwards: one entry per task, bounded, without secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from machina.errors import RunError
from machina.events import encode_json
from machina.observability.redaction import MASK, Redactor, is_secret_field

MAX_ENTRIES: Final = 500
MAX_BYTES: Final = 131_072
"""Encoded size of all entries of a run: they travel with its record."""

_MAX_BLOCK: Final = 8_000
_MAX_TEXT: Final = 2_000
_MAX_CONDITION: Final = 200
_MAX_LEVELS: Final = 12
_CUT: Final = "…"


@dataclass(slots=True)
class Trace:
    """What one task did, noted while it does it."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)


class TaskLog:
    """The entries of one run. They are added to the list given, which the run's record keeps."""

    def __init__(self, redactor: Redactor, entries: list[dict[str, Any]] | None = None) -> None:
        self.entries: list[dict[str, Any]] = [] if entries is None else entries
        self._redactor = redactor
        self._bytes = sum(len(encode_json(entry)) for entry in self.entries)
        self._is_full = bool(self.entries) and self.entries[-1].get("truncated") is True

    def add(
        self,
        workflow: str,
        task: tuple[str, str],
        status: str,
        seconds: float,
        *,
        error: RunError | None = None,
        condition: object = None,
        trace: Trace | None = None,
    ) -> None:
        """Adds a task, given as type and name; `trace` also shows its inputs and outputs."""
        if self._is_full:
            return
        type, name = task
        entry: dict[str, Any] = {
            "workflow": workflow,
            "type": type,
            "name": name,
            "status": status,
            "seconds": round(seconds, 3),
        }
        if error is not None:
            entry["error"] = {"code": error.code, "message": self._redactor.text(error.message)}
        if condition is not None:
            entry["condition"] = self._redactor.text(str(condition))[:_MAX_CONDITION]
        if trace is not None:
            entry["inputs"] = abridge(trace.inputs, self._redactor.text)
            entry["outputs"] = abridge(trace.outputs, self._redactor.text)
        self._keep(entry)

    def _keep(self, entry: dict[str, Any]) -> None:
        size = len(encode_json(entry))
        if len(self.entries) < MAX_ENTRIES and self._bytes + size <= MAX_BYTES:
            self.entries.append(entry)
            self._bytes += size
            return
        self._is_full = True
        if self.entries:
            self.entries[-1]["truncated"] = True


def abridge(value: Any, clean: Callable[[str], str]) -> Any:
    """A copy of plain data that is small enough for a log; `clean` hides secrets in texts.

    Fields that are named like secrets are masked, dates are text, and what is too long ends in `…`.
    """
    return _Abridging(clean).copy(value, 0)


class _Abridging:
    """One copy, with the room that is left for it."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self._clean = clean
        self._room = _MAX_BLOCK

    def copy(self, value: Any, level: int) -> Any:
        self._room -= 8
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, date):  # moments are dates too
            return value.isoformat()
        if level >= _MAX_LEVELS or self._room <= 0:
            return _CUT
        if isinstance(value, Mapping):
            return self._fields(value, level)
        if isinstance(value, list | tuple | set | frozenset):
            return self._items(value, level)
        return self._text(str(value))

    def _text(self, value: str) -> str:
        text = self._clean(value)
        most = max(0, min(_MAX_TEXT, self._room))
        self._room -= min(len(text), most)
        return text if len(text) <= most else text[:most] + _CUT

    def _fields(self, value: Mapping[Any, Any], level: int) -> dict[str, Any]:
        copied: dict[str, Any] = {}
        for key, inner in value.items():
            if self._room <= 0:
                copied[_CUT] = len(value) - len(copied)
                break
            name = self._text(str(key))
            hidden = inner is not None and not isinstance(inner, bool) and is_secret_field(name)
            copied[name] = MASK if hidden else self.copy(inner, level + 1)
        return copied

    def _items(self, value: Any, level: int) -> list[Any]:
        copied: list[Any] = []
        for inner in value:
            if self._room <= 0:
                copied.append(_CUT)
                break
            copied.append(self.copy(inner, level + 1))
        return copied

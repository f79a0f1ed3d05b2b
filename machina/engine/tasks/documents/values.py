"""Checks what is to be written before the store sees it: its types, its depth, its size. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from machina.errors import TaskFailed

MAX_BYTES: Final = 12_000_000
"""One document, roughly: MongoDB takes 16 MiB of BSON."""
MAX_DEPTH: Final = 90
"""MongoDB takes a hundred levels, of which the document itself needs some."""
_MARGIN: Final = 16


def storable(value: Any, where: str) -> Any:
    """The value with sets as lists, and everything else as it is.

    Raises:
        TaskFailed: it holds what no document can, or too much; the message says where.
    """
    return _Check(where).value(value, "value", 0)


class _Check:
    def __init__(self, where: str) -> None:
        self._where = where
        self._bytes = 0

    def value(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        self._count(len(value) if kind is str else 0, path)
        if kind is str or value is None or kind is bool or kind is int or kind is float:
            return value
        if depth > MAX_DEPTH:
            self._fail(f"is nested deeper than {MAX_DEPTH} levels", path)
        if isinstance(value, Mapping):
            return {self._key(k, path): self.value(v, f"{path}.{k}", depth + 1)
                    for k, v in value.items()}  # fmt: skip
        if isinstance(value, set | frozenset):
            value = sorted(value, key=str)
        if isinstance(value, list | tuple):
            return [self.value(item, path, depth + 1) for item in value]
        return self._rare(value, path)

    def _rare(self, value: Any, path: str) -> Any:
        for kind in (str, int, float):
            if isinstance(value, kind):  # such as free text of a model
                return kind(value)
        if isinstance(value, bytes):
            self._count(2 * len(value), path)
            return value
        if not isinstance(value, datetime):
            self._fail(f"is a {type(value).__name__}, which documents do not hold; make it text",
                       path)  # fmt: skip
        return value

    def _key(self, key: Any, path: str) -> str:
        if not isinstance(key, str) or "\0" in key:
            self._fail(f"has the key {key!r:.80}; keys are text", path)
        self._count(len(key), path)
        return str(key)

    def _count(self, length: int, path: str) -> None:
        self._bytes += length + _MARGIN
        if self._bytes > MAX_BYTES:
            self._fail(f"makes a document of more than {MAX_BYTES} bytes", path)

    def _fail(self, problem: str, path: str) -> None:
        raise TaskFailed(f"A document of {self._where} cannot be written: {path} {problem}.")

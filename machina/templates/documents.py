"""Texts that become documents: the references of skills, and `documents` datasets.

Both have the same entries: `{name, title, filename, filetype, metadata}`, with files relative to
the file that lists them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from machina.templates.bundle import Bundle, FileRefused, resolve
from machina.templates.connectors import read_text
from machina.templates.plan import Document, Failed, Outcome

_SHOWN: Final = ("title", "filename", "filetype")


def read_document(
    bundle: Bundle,
    path: str,
    entry: Any,
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> tuple[Outcome, list[str]]:
    """The document of one entry in the file at `path`, and the files it is made of.

    Args:
        name: What the document is called when the entry does not say.
        metadata: Its metadata when the entry has none.
    """
    if not isinstance(entry, Mapping):
        return Failed(f"{path}: a document is listed as {entry!r:.60}.", "definition_invalid"), []
    called = entry.get("name") or name
    if not isinstance(called, str):
        return Failed(f"{path}: a document is listed without a name.", "definition_invalid"), []
    given = entry.get("metadata")
    own = dict(given) if isinstance(given, Mapping) and given else dict(metadata or {})
    fields = {key: entry[key] for key in _SHOWN if entry.get(key) is not None}
    written = [key for key in ("value", "content") if key in entry]
    if written and "filename" not in entry:
        return Document(called, {"value": entry[written[0]], **fields}, own), []
    try:
        file = _file_of(path, entry)
        return Document(called, {"value": read_text(bundle, file), **fields}, own), [file]
    except FileRefused as wrong:
        return Failed(wrong.message, wrong.code), []


def _file_of(path: str, entry: Mapping[str, Any]) -> str:
    file = entry.get("filename")
    if not isinstance(file, str) or not file.strip():
        raise FileRefused(f"{path}: a document is listed without a filename.")
    return resolve(posixpath.dirname(path), file.strip())

"""What a YAML file of a template is: decided by its root key, not by what others call it.

Singular and plural are synonyms. A file without a root key is one definition whose fields stand at
the top: what refers to it, or else its fields, say of which kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class FileKind(StrEnum):
    """What a file, or one root key of it, holds. The first six are kinds of the store."""

    AGENT = "agent"
    WORKFLOW = "workflow"
    CONNECTOR = "connector"
    PROMPT = "prompt"
    MAPPING = "mapping"
    SKILL = "skill"
    DOCUMENT = "document"
    """A list of documents whose texts are files of their own."""
    INSTALL = "install"
    """An install manifest."""
    PROJECT = "project"
    """A project manifest."""
    FOLDERS = "folders"
    """A hint for user interfaces."""
    FOREIGN = "foreign"
    """Nothing of ours."""


@dataclass(frozen=True, slots=True)
class Root:
    """The content of one root key."""

    kind: FileKind
    items: list[Any]
    """The objects, as authored. What is wrong with them is found when they are read."""
    is_list: bool
    """Whether the author wrote a list."""


_ROOTS: Final[Mapping[str, FileKind]] = {
    name: kind for kind in list(FileKind)[:7] for name in (kind.value, f"{kind.value}s")
}
_PROJECT_FIELDS: Final = frozenset(
    (
        "required_credentials",
        "required_templates",
        "required_config_documents",
        "depends_on_datasets",
    )
)
_PROJECT_FILES: Final = ("project.manifest.yml", "project.manifest.yaml")
_SHAPES: Final[tuple[tuple[frozenset[str], FileKind], ...]] = (
    (frozenset(("references",)), FileKind.SKILL),
    (frozenset(("tasks",)), FileKind.WORKFLOW),
    (frozenset(("context-agent", "context")), FileKind.AGENT),
    (frozenset(("filetype", "filecontent", "apiSpec", "commands")), FileKind.CONNECTOR),
    (frozenset(("instruction", "instructions", "schema")), FileKind.PROMPT),
    (frozenset(("workflows", "entry-point", "entry_point")), FileKind.SKILL),
)
"""Fields that tell the kind of a file without a root key; the first that fits."""


def kind_named(text: object) -> FileKind | None:
    """The kind that a word such as `prompts` means; None for any other."""
    return _ROOTS.get(text) if isinstance(text, str) else None


def read_roots(document: Any, *, file_name: str, hint: FileKind | None = None) -> list[Root]:
    """What one YAML document holds, in the order of its keys.

    Args:
        document: The document as it was loaded.
        file_name: The last part of the file's path; a few names mean something.
        hint: The kind by which a manifest refers to the file; counts only without a root key.
    """
    if not isinstance(document, dict):
        return [Root(FileKind.FOREIGN, [document], is_list=False)]
    if file_name in _PROJECT_FILES or not _PROJECT_FIELDS.isdisjoint(document):
        return [Root(FileKind.PROJECT, [document], is_list=False)]
    if "datasets" in document or isinstance(document.get("setup"), dict):
        return [Root(FileKind.INSTALL, [document], is_list=False)]
    rootless = _read_rootless(document, hint)
    if rootless is not None:
        return [rootless]
    roots = [
        _root(_ROOTS[key], value)
        for key, value in document.items()
        if key in _ROOTS and isinstance(value, dict | list)
    ]
    if roots:
        return roots
    kind = FileKind.FOLDERS if "folders" in document else FileKind.FOREIGN
    return [Root(kind, [document], is_list=False)]


def _root(kind: FileKind, value: dict[str, Any] | list[Any]) -> Root:
    if isinstance(value, list):
        return Root(kind, value, is_list=True)
    return Root(kind, [value], is_list=False)


def _read_rootless(document: dict[str, Any], hint: FileKind | None) -> Root | None:
    """A definition whose fields stand at the top: it has a name, and no root key with an object."""
    if not isinstance(document.get("name"), str):
        return None
    for key, kind in _ROOTS.items():
        value = document.get(key)
        if isinstance(value, dict) or (kind is hint and isinstance(value, list)):
            return None
    fits = (kind for fields, kind in _SHAPES if not fields.isdisjoint(document))
    found = hint or next(fits, None)
    return None if found is None else Root(found, [document], is_list=False)

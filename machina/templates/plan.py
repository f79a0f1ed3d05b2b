"""What an installation would write: everything read and checked, nothing stored yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from machina.store.definitions import Kind


@dataclass(frozen=True, slots=True)
class Definition:
    """A definition to be saved under its name."""

    kind: Kind
    body: Mapping[str, Any]
    """As authored; a connector with the text of its implementation in `filecontent`."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document to be saved over the one with its name and metadata."""

    name: str
    fields: Mapping[str, Any]
    """`value`, `title`, `filename`, `filetype`, as far as they are known."""
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProjectManifest:
    """A project manifest to be kept and checked."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is no mistake and nothing to install."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Something that cannot be installed; the message names the file and the reason."""

    message: str
    code: str


Outcome = Definition | Document | ProjectManifest | Skipped | Failed


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a manifest, or one file of a folder without a manifest."""

    path: str
    """As the manifest has it."""
    type: str
    outcomes: Sequence[Outcome]
    is_list: bool = False
    """Whether the file holds a list, and its report is one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A template, ready to be installed."""

    directory: str
    setup: Mapping[str, Any]
    entries: Sequence[Entry]
    files: Sequence[str] = ()
    """Paths of the repository that the template was made of."""
    has_manifest: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """Where a template came from; what is remembered of it holds no secret."""

    kind: Literal["folder", "archive", "git"]
    place: str
    """The folder, the archive's name, or the URL without credentials."""
    branch: str = ""
    commit: str = ""
    private: bool = False

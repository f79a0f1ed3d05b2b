"""From a folder, an archive or a clone to plans: which templates are meant, and what they hold."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from machina.templates.bundle import Bundle, FolderBundle, resolve
from machina.templates.manifest import MANIFEST_NAMES, Manifest, NoTemplate, find_manifests
from machina.templates.plan import Plan
from machina.templates.reading import read_loose_files, read_template

_FAMILIES: Final = ("agent-templates", "connectors", "skills", "templates")
"""Directories of a repository in which templates lie, each in one of its own."""


@dataclass(frozen=True, slots=True)
class GitRequest:
    """A template to be installed from a repository."""

    url: str
    branch: str = ""
    template: str = ""
    """Its directory in the repository; empty for all there are."""
    token: str | None = field(default=None, repr=False)
    private: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """A local folder as a bundle: the repository around it, and the directory that is meant."""

    bundle: FolderBundle
    directory: str


def open_folder(path: Path) -> Folder:
    """A folder with templates. Blocking.

    The repository is the nearest folder above with a `.git`; without one, what holds the family of
    templates (`connectors/`, `agent-templates/`, …) that the folder belongs to; else the folder.
    """
    real = path.resolve()
    root = _repository_of(real)
    directory = real.relative_to(root).as_posix()
    return Folder(FolderBundle(root), "" if directory == "." else directory)


def _repository_of(path: Path) -> Path:
    for folder in (path, *path.parents):
        if (folder / ".git").exists():
            return folder
    for folder in path.parents:
        if folder.name in _FAMILIES:
            return folder.parent
    return path


def read_plans(bundle: Bundle, directory: str = "", template: str = "") -> list[Plan]:
    """The plans of the templates that are meant. Blocking.

    Args:
        directory: Where to look; the root by default.
        template: The template's directory below that, or its name; empty for all there are.

    Raises:
        NoTemplate: there is nothing to install.
        FileRefused: `template` leads out of the repository.
    """
    place = resolve(directory, template.strip().strip("/")) if template else directory
    if posixpath.basename(place) in MANIFEST_NAMES:
        place = posixpath.dirname(place)
    try:
        return [read_template(bundle, manifest) for manifest in find_manifests(bundle, place)]
    except NoTemplate:
        named = _named(bundle, directory, template) if template else []
        if named:
            return [read_template(bundle, manifest) for manifest in named]
    return [read_loose_files(bundle, place)]


def _named(bundle: Bundle, directory: str, template: str) -> list[Manifest]:
    """The one template whose directory has this name."""
    try:
        manifests = find_manifests(bundle, directory)
    except NoTemplate:
        return []
    found = [m for m in manifests if posixpath.basename(m.directory) == template.strip().strip("/")]
    return found if len(found) == 1 else []


def list_templates(bundle: Bundle, directory: str = "") -> list[dict[str, Any]]:
    """Every template of a bundle, by path, with the files it lists. Blocking."""
    try:
        manifests: Sequence[Manifest] = find_manifests(bundle, directory)
    except NoTemplate:
        return []
    return [_listed(manifest) for manifest in manifests]


def list_folder(path: Path) -> list[dict[str, Any]]:
    """Every template of a local folder. Blocking."""
    folder = open_folder(path)
    return list_templates(folder.bundle, folder.directory)


def _listed(manifest: Manifest) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": manifest.directory or ".",
        "datasets": [
            {"type": dataset.type, "path": dataset.shown} for dataset in manifest.datasets
        ],
    }
    for key in ("title", "description", "version", "category"):
        if key in manifest.setup:
            row[key] = manifest.setup[key]
    if manifest.problem is not None:
        row["error"] = manifest.problem
    return row

"""Install manifests: where they are, and which files they list in which order."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from machina.definitions.loading import YamlInvalid, load_documents
from machina.templates.bundle import Bundle, FileMissing, FileRefused, resolve

MANIFEST_NAMES: Final = ("_install.yml", "_install.yaml")
PROJECT_NAMES: Final = ("project.manifest.yml", "project.manifest.yaml")
_MAX_EXTENDS: Final = 20


class NoTemplate(FileRefused):
    """There is nothing that could be installed."""

    code, title = "template_missing", "No template found"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One entry of a manifest; `path` belongs to the repository, None when the entry is no use."""

    type: str
    path: str | None
    shown: str
    """How the author wrote the path."""
    problem: str | None = None
    """Why there is no path."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A template: its directory in the repository, what it says of itself, what it installs."""

    directory: str
    file: str | None
    """Path of the manifest; None for a folder without one."""
    setup: dict[str, Any] = field(default_factory=dict)
    datasets: Sequence[Dataset] = ()
    problem: str | None = None
    """Why the manifest as a whole cannot be used."""


def find_manifests(bundle: Bundle, directory: str = "") -> list[Manifest]:
    """The templates in a directory: its own manifest, else all those below it, by path.

    Raises:
        NoTemplate: no manifest there or below.
    """
    own = [posixpath.join(directory, name) for name in MANIFEST_NAMES]
    files = bundle.files()
    prefix = f"{directory}/" if directory else ""
    found = [path for path in own if path in files] or [
        path
        for path in files
        if path.startswith(prefix) and posixpath.basename(path) in MANIFEST_NAMES
    ]
    if not found:
        place = f"'{directory:.200}'" if directory else "the template"
        raise NoTemplate(f"There is no {MANIFEST_NAMES[0]} in {place} or below it.")
    return [read_manifest(bundle, path) for path in found]


def read_manifest(bundle: Bundle, path: str) -> Manifest:
    """The manifest at a path. What is wrong with it stands in its `problem`."""
    directory = posixpath.dirname(path)
    try:
        content = _load(bundle, path)
        setup = content.get("setup")
        setup = setup if isinstance(setup, dict) else {}
        datasets = list(_all_datasets(bundle, path, content, seen=set()))
    except (FileRefused, YamlInvalid) as wrong:
        return Manifest(directory, path, problem=_placed(path, wrong))
    if not datasets:
        problem = f"{path}: lists no datasets; add 'datasets' with a type and a path each."
        return Manifest(directory, path, setup, problem=problem)
    return Manifest(directory, path, setup, datasets)


def _load(bundle: Bundle, path: str) -> dict[str, Any]:
    documents = load_documents(bundle.read(path))
    if not documents or not isinstance(documents[0], dict):
        raise FileRefused(f"{path}: is no manifest; it needs the keys 'setup' and 'datasets'.")
    content: dict[str, Any] = documents[0]
    return content


def _all_datasets(
    bundle: Bundle, path: str, content: dict[str, Any], seen: set[str]
) -> Iterator[Dataset]:
    """The datasets of what the manifest extends, then its own."""
    seen.add(path)
    directory = posixpath.dirname(path)
    for shown in _extended(content):
        try:
            target = _manifest_at(bundle, resolve(directory, shown))
            if target in seen or len(seen) > _MAX_EXTENDS:
                raise FileRefused(f"{shown}: extended more than once, or in a circle.")
            yield from _all_datasets(bundle, target, _load(bundle, target), seen)
        except (FileRefused, YamlInvalid) as wrong:
            yield Dataset("extends", None, shown, _placed(shown, wrong))
    for entry in _listed(content):
        yield _read_dataset(entry, directory)


def _extended(content: dict[str, Any]) -> list[str]:
    value = content.get("extends")
    entries = value if isinstance(value, list) else [value]
    paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in entries]
    return [path for path in paths if isinstance(path, str) and path]


def _manifest_at(bundle: Bundle, path: str) -> str:
    """A manifest named by its own path, or by that of its directory."""
    files = bundle.files()
    for candidate in (path, *(posixpath.join(path, name) for name in MANIFEST_NAMES)):
        if candidate in files:
            return candidate
    raise FileMissing(f"{path}: no such manifest in the template's repository.")


def _listed(content: dict[str, Any]) -> list[Any]:
    setup = content.get("setup")
    nested = setup.get("datasets") if isinstance(setup, dict) else None
    for value in (content.get("datasets"), nested):
        if isinstance(value, list):
            return value
    return []


def _read_dataset(entry: Any, directory: str) -> Dataset:
    if isinstance(entry, str):
        entry = {"path": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return Dataset("", None, "", f"{entry!r:.80}: an entry of 'datasets' without a path.")
    type = str(entry.get("type") or "")
    shown = entry["path"].strip()
    try:
        return Dataset(type, resolve(directory, shown), shown)
    except FileRefused as wrong:
        return Dataset(type, None, shown, wrong.message)


def _placed(path: str, wrong: FileRefused | YamlInvalid) -> str:
    return f"{path}: {wrong.message}" if isinstance(wrong, YamlInvalid) else wrong.message

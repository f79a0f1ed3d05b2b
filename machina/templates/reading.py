"""Reads a template into a plan: every file that its manifest lists, in the listed order.

What is broken becomes a `Failed` in its place; the rest is not touched by it. Blocking throughout.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, Final, cast

from machina.definitions.base import check_name
from machina.definitions.loading import YamlInvalid, load_documents
from machina.definitions.loading_roots import FileKind, Root, kind_named, read_roots
from machina.errors import Invalid
from machina.store.definitions import Kind
from machina.templates.bundle import Bundle, FileRefused
from machina.templates.connectors import complete
from machina.templates.documents import read_document
from machina.templates.manifest import PROJECT_NAMES, Dataset, Manifest, NoTemplate
from machina.templates.plan import (
    Definition,
    Entry,
    Failed,
    Outcome,
    Plan,
    ProjectManifest,
    Skipped,
)

_YAML: Final = (".yml", ".yaml")
_INDEXES: Final = ("_index.yml", "_index.yaml", "skill.yml", "skill.yaml")
"""What a dataset means that names a directory."""
_REFERENCE: Final = "skill-reference"


def read_template(bundle: Bundle, manifest: Manifest) -> Plan:
    """The plan of one template."""
    reader = _Reader(bundle)
    entries = [reader.read_dataset(dataset) for dataset in manifest.datasets]
    if manifest.problem is not None:
        shown = manifest.file or manifest.directory
        entries.append(Entry(shown, "", [Failed(manifest.problem, "manifest_invalid")]))
    if manifest.file is not None:
        reader.files.append(manifest.file)
    entries += reader.read_project_manifest(manifest.directory)
    return Plan(manifest.directory, manifest.setup, entries, sorted(set(reader.files)))


def read_loose_files(bundle: Bundle, directory: str = "") -> Plan:
    """The plan of a directory without a manifest: every YAML file of ours in it, by path.

    Raises:
        NoTemplate: there is none.
    """
    prefix = f"{directory}/" if directory else ""
    reader = _Reader(bundle)
    files = [f for f in bundle.files() if f.startswith(prefix) and f.endswith(_YAML)]
    entries = [
        entry
        for file in files
        if (entry := reader.read_dataset(Dataset("", file, file))).outcomes
        and not _is_foreign(entry)
    ]
    if not any(not isinstance(o, Skipped) for entry in entries for o in entry.outcomes):
        raise NoTemplate("There is no _install.yml, and no YAML file that could be installed.")
    return Plan(directory, {}, entries, sorted(set(reader.files)), has_manifest=False)


def _is_foreign(entry: Entry) -> bool:
    return any(isinstance(o, Failed) and o.code == "file_unknown" for o in entry.outcomes)


class _Reader:
    """Reads files of one bundle, and notes which."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.files: list[str] = []

    def read_dataset(self, dataset: Dataset) -> Entry:
        if dataset.path is None:
            failed = Failed(dataset.problem or "An entry without a path.", "path_refused")
            return Entry(dataset.shown, dataset.type, [failed])
        outcomes: list[Outcome] = []
        is_list = False
        try:
            path = self._file_at(dataset.path)
            for root in self._roots(path, kind_named(dataset.type)):
                outcomes += self._read_root(path, root)
                is_list = is_list or root.is_list
        except (FileRefused, YamlInvalid) as wrong:
            placed = isinstance(wrong, FileRefused)
            message = wrong.message if placed else f"{dataset.shown}: {wrong.message}"
            outcomes.append(Failed(message, wrong.code))
        if not outcomes:
            outcomes.append(Skipped(f"{dataset.shown}: the file is empty."))
        return Entry(dataset.shown, dataset.type, outcomes, is_list or len(outcomes) > 1)

    def read_project_manifest(self, directory: str) -> Iterator[Entry]:
        """The project manifest beside an install manifest."""
        present = self._bundle.files()
        for name in PROJECT_NAMES:
            path = posixpath.join(directory, name)
            if path in present and path not in self.files:
                yield self.read_dataset(Dataset("project", path, name))

    def _file_at(self, path: str) -> str:
        files = self._bundle.files()
        if path not in files:
            for name in _INDEXES:
                candidate = posixpath.join(path, name)
                if candidate in files:
                    return candidate
        return path

    def _roots(self, path: str, hint: FileKind | None) -> Iterator[Root]:
        content = self._bundle.read(path)
        self.files.append(path)
        for document in load_documents(content):
            yield from read_roots(document, file_name=posixpath.basename(path), hint=hint)

    def _read_root(self, path: str, root: Root) -> Iterator[Outcome]:
        if root.kind is FileKind.FOREIGN:
            yield Failed(f"{path}: no root key of a definition, as 'workflow:'.", "file_unknown")
        elif root.kind is FileKind.INSTALL:
            yield Skipped(f"{path}: an install manifest; install its directory by itself.")
        elif root.kind is FileKind.FOLDERS:
            yield Skipped(f"{path}: folders of a user interface.")
        elif root.kind is FileKind.PROJECT:
            yield from (ProjectManifest(item) for item in root.items)
        elif root.kind is FileKind.DOCUMENT:
            for item in root.items:
                yield from self._read_document(path, item)
        else:
            for number, item in enumerate(root.items, start=1):
                if item is not None:
                    yield from self._read_definition(path, root, item, number)

    def _read_document(self, path: str, item: Any, **defaults: Any) -> Iterator[Outcome]:
        outcome, files = read_document(self._bundle, path, item, **defaults)
        self.files += files
        yield outcome

    def _read_definition(self, path: str, root: Root, item: Any, number: int) -> Iterator[Outcome]:
        shown = f"{path}, item {number}" if root.is_list else path
        try:
            if not isinstance(item, dict):
                raise Invalid(f"a {root.kind} must be a dictionary, not {type(item).__name__}.")
            check_name(item.get("name"))
            body: dict[str, Any] = item
            if root.kind is FileKind.CONNECTOR:
                body, files = complete(self._bundle, path, item)
                self.files += files
        except FileRefused as wrong:
            yield Failed(f"{shown}: {wrong.message}", wrong.code)
            return
        except Invalid as wrong:
            yield Failed(f"{shown}: {wrong.message}", "definition_invalid")
            return
        yield Definition(cast(Kind, root.kind.value), body)
        if root.kind is FileKind.SKILL:
            references = item.get("references")
            for reference in references if isinstance(references, list) else ():
                yield from self._read_document(
                    path, reference, name=_REFERENCE, metadata={"skill": item["name"]}
                )

"""Writes a plan into the store: entry by entry, each definition in one step.

Until its own entry is written, the earlier version of a definition keeps serving. A second
installation of the same template changes nothing but dates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog

from machina.errors import Invalid
from machina.store import Store
from machina.templates import report
from machina.templates.plan import (
    Definition,
    Document,
    Entry,
    Outcome,
    Plan,
    ProjectManifest,
    Skipped,
    Source,
)
from machina.templates.project import check_project
from machina.templates.records import TemplateRecords
from machina.templates.report import EntryReport, Result, TemplateReport

log = structlog.get_logger(__name__)

PROJECT_DOCUMENT: Final = "project_manifest"
"""Name of the documents that keep project manifests; `metadata.manifest` is the manifest's name."""


class Installer:
    """Installs into one project of a store. Every call raises `StoreDown` when that is away."""

    def __init__(self, store: Store, project: str) -> None:
        self._store = store
        self._project = project

    async def install(self, plan: Plan, source: Source) -> TemplateReport:
        """Installs a template and remembers where it came from."""
        entries: list[EntryReport] = []
        projects: list[tuple[int, Mapping[str, Any]]] = []
        for entry in plan.entries:
            done = await self._write_entry(entry)
            projects += [
                (len(entries), outcome.body)
                for outcome in entry.outcomes
                if isinstance(outcome, ProjectManifest)
            ]
            entries.append(done)
        made = TemplateReport(plan.directory or source.place, entries, setup=plan.setup)
        await TemplateRecords(self._store).remember(self._project, plan, source, made)
        for place, manifest in projects:  # checked last, when this template counts as installed
            await self._check(entries[place], manifest)
        log.info(
            "template.installed",
            template=plan.directory or source.place,
            project=self._project,
            source=source.kind,
            **_counted(made),
        )
        return made

    async def _write_entry(self, entry: Entry) -> EntryReport:
        results, names = [], []
        for outcome in entry.outcomes:
            results.append(await self._write(entry.path, outcome))
            names.append(_name_of(outcome))
        return EntryReport(entry.path, entry.type, results, names, entry.is_list)

    async def _write(self, path: str, outcome: Outcome) -> Result:
        try:
            return await self._write_checked(path, outcome)
        except Invalid as wrong:  # the store cannot keep it: a field name with NUL, say
            return report.failed(f"{path}: {wrong.message}", wrong.code, path)

    async def _write_checked(self, path: str, outcome: Outcome) -> Result:
        if isinstance(outcome, Definition):
            return await self._write_definition(outcome)
        if isinstance(outcome, Document):
            return await self._write_document("document", outcome)
        if isinstance(outcome, ProjectManifest):
            name = str(outcome.body.get("name") or path)
            kept = Document(
                PROJECT_DOCUMENT, {"value": dict(outcome.body), "title": name}, {"manifest": name}
            )
            return await self._write_document("project manifest", kept)
        if isinstance(outcome, Skipped):
            log.warning("template.file_skipped", path=path, reason=outcome.reason)
            return report.skipped(outcome.reason)
        log.warning("template.entry_failed", path=path, reason=outcome.message)
        return report.failed(outcome.message, outcome.code, path)

    async def _write_definition(self, definition: Definition) -> Result:
        kind = definition.kind
        id, is_new = await self._store.definitions.install(
            self._project,
            kind,
            definition.body,
            status=status_on_install(definition.body) if kind == "agent" else None,
        )
        return report.saved(kind, id) if is_new else report.updated(kind)

    async def _write_document(self, kind: str, document: Document) -> Result:
        query: dict[str, Any] = {"name": document.name}
        for key, value in document.metadata.items():
            if key and "." not in key and not key.startswith("$"):
                query[f"metadata.{key}"] = {"$eq": value}
        found = await self._store.documents.find(self._project, query, limit=1)
        if found:
            kept = found[0].get("metadata")
            metadata = {**(kept if isinstance(kept, dict) else {}), **document.metadata}
            fields = {**document.fields, "metadata": metadata}
            await self._store.documents.update(self._project, {"_id": found[0]["_id"]}, fields)
            return report.updated(kind)
        added = await self._store.documents.insert(
            self._project,
            {"name": document.name, **document.fields, "metadata": dict(document.metadata)},
        )
        return report.saved(kind, str(added["_id"]))

    async def _check(self, entry: EntryReport, manifest: Mapping[str, Any]) -> None:
        missing = await check_project(self._store, self._project, manifest)
        for result in entry.results:
            result["missing"] = missing


def status_on_install(agent: Mapping[str, Any]) -> str | None:
    """The status of an agent that has none at its top level: its context's, else that of an agent
    which is to run by itself. None when nothing says.
    """
    context = agent.get("context")
    if not isinstance(context, Mapping):
        return None
    status = context.get("status")
    if isinstance(status, str) and status:
        return status
    return "active" if context.get("config-frequency") is not None else None


def _name_of(outcome: Outcome) -> str:
    if isinstance(outcome, Definition | ProjectManifest):
        return str(outcome.body.get("name") or "")
    return outcome.name if isinstance(outcome, Document) else ""


def _counted(made: TemplateReport) -> dict[str, int]:
    counts = report.Counts.of([made])
    return {"saved": counts.saved, "updated": counts.updated, "failed": counts.failed}

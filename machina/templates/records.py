"""What was installed from where: for project manifests that ask, and for pushes that update it.

A record is `{_id, project, name, kind, place, branch, commit, private, directory, title, version,
files, counts, created, updated}`; `name` is made of place and directory. No credential is in it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from machina.ids import make_mint
from machina.store import Store
from machina.store.base import Record
from machina.templates.plan import Plan, Source
from machina.templates.report import Counts, TemplateReport

_MAX_RECORDS = 10_000


class TemplateRecords:
    """The installed templates of all projects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records = store.backend.collection("templates")

    async def remember(
        self, project: str, plan: Plan, source: Source, made: TemplateReport
    ) -> None:
        """Notes that a template was installed, over what is known of it."""
        now = await self._store.now()
        await self._records.find_and_update(
            {"project": project, "name": f"{source.place}#{plan.directory}"},
            {
                "$set": {
                    "kind": source.kind,
                    "place": source.place,
                    "branch": source.branch,
                    "commit": source.commit,
                    "private": source.private,
                    "directory": plan.directory,
                    "title": str(plan.setup.get("title") or ""),
                    "version": str(plan.setup.get("version") or ""),
                    "files": list(plan.files),
                    "counts": asdict(Counts.of([made])),
                    "updated": now,
                },
                "$setOnInsert": {"_id": make_mint()(now.timestamp()), "created": now},
            },
            upsert=True,
        )

    async def find(self, query: dict[str, Any]) -> list[Record]:
        """The records that match, by name."""
        return await self._records.find(query, sort=(("name", 1),), limit=_MAX_RECORDS)

"""What an installation reports: an object per thing that was written, in the recorded form.

A success is `{"data": {"id": …}, "message": "workflow saved", "status": true}`, or the same without
`data` and with "workflow updated" when it existed. A file that holds a list reports a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Result = dict[str, Any]


def saved(kind: str, id: str) -> Result:
    """Something new was written."""
    return {"data": {"id": id}, "message": f"{kind} saved", "status": True}


def updated(kind: str) -> Result:
    """Something was written over what had its name."""
    return {"message": f"{kind} updated", "status": True}


def skipped(reason: str) -> Result:
    """Nothing was there to be written, and that is no mistake."""
    return {"message": f"skipped: {reason}", "skipped": True, "status": True}


def failed(message: str, code: str, path: str) -> Result:
    """Something could not be installed; the message names file and reason."""
    return {
        "data": {},
        "error": {"id": code, "message": message},
        "message": message,
        "path": path,
        "status": False,
    }


@dataclass(frozen=True, slots=True)
class EntryReport:
    """What became of one entry of a manifest."""

    path: str
    type: str
    results: Sequence[Result]
    names: Sequence[str]
    """What each result is about, for people."""
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """What became of one template."""

    template: str
    entries: Sequence[EntryReport] = ()
    error: str | None = None
    """Why nothing of it could be read."""
    code: str = "template_failed"
    setup: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> Iterator[Result]:
        """Every single result."""
        for entry in self.entries:
            yield from entry.results

    @property
    def is_complete(self) -> bool:
        """Whether nothing failed."""
        return self.error is None and all(result["status"] for result in self.results)

    def as_answer(self) -> dict[str, Any]:
        """The form of one template in an answer."""
        answer: dict[str, Any] = {
            "data": {
                "template": self.template,
                "results": [
                    list(entry.results) if entry.is_list else entry.results[0]
                    for entry in self.entries
                ],
            },
            "status": self.is_complete,
        }
        if self.error is not None:
            answer["error"] = {"id": self.code, "message": self.error}
        return answer


@dataclass(frozen=True, slots=True)
class Counts:
    """How many things were written, and how many were not."""

    saved: int = 0
    updated: int = 0
    skipped: int = 0
    failed: int = 0

    @classmethod
    def of(cls, reports: Iterable[TemplateReport]) -> Counts:
        """The counts over several templates; one that could not be read counts as a failure."""
        counts = {"saved": 0, "updated": 0, "skipped": 0, "failed": 0}
        for report in reports:
            counts["failed"] += report.error is not None
            for result in report.results:
                counts[_outcome(result)] += 1
        return cls(**counts)

    @property
    def written(self) -> int:
        return self.saved + self.updated

    def as_text(self) -> str:
        """A sentence's worth of it."""
        parts = [f"{self.saved} saved", f"{self.updated} updated"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        return ", ".join([*parts, f"{self.failed} failed"])


def _outcome(result: Result) -> str:
    if not result["status"]:
        return "failed"
    if result.get("skipped"):
        return "skipped"
    return "saved" if "data" in result else "updated"

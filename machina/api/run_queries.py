"""Searches for runs: from the public names and words to those of the record, and back in rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from machina.errors import Invalid
from machina.runs.run import RunKind, RunStatus, stored_statuses
from machina.store.base import Sort

_NAMES: Final[Mapping[str, str]] = {
    "_id": "_id",
    "id": "_id",
    "document_id": "_id",
    "agent_run_id": "_id",
    "workflow_run_id": "_id",
    "task_id": "_id",
    "name": "target_name",
    "agent_name": "target_name",
    "workflow_name": "target_name",
    "agent_id": "target_id",
    "workflow_id": "target_id",
    "status": "status",
    "outcome": "status",
    "thread_id": "thread_id",
    "created": "created",
    "date": "created",
    "updated": "created",
    "started_time": "started",
    "finished_time": "finished",
    "total_workflows": "total_workflows",
}
"""The public names that can be searched and sorted by, and the record's names behind them.

`status` is compared by the public words, `outcome` by the four words in which a run can end.
"""

_DATES: Final = frozenset(("created", "started", "finished"))
_LOGICAL: Final = frozenset(("$and", "$or", "$nor"))
_MAX_DEPTH: Final = 10


def run_filters(filters: Mapping[str, Any], kind: RunKind, depth: int = 0) -> dict[str, Any]:
    """The store's query for public filters. Operators are checked by the store, where they end.

    Raises:
        Invalid: a field that runs do not have, or a date or status that cannot be understood.
    """
    if depth > _MAX_DEPTH:
        raise Invalid(f"'filters' is nested deeper than {_MAX_DEPTH} levels.", field="filters")
    parts: list[dict[str, Any]] = []
    for name, condition in filters.items():
        if name in _LOGICAL:
            parts.append({name: _branches(name, condition, kind, depth)})
            continue
        stored = _stored(name, "filters")
        if name == "status":
            parts.append({stored: _status(condition, kind)})
        elif stored in _DATES:
            parts.append({stored: _dated(condition)})
        else:
            parts.append({stored: condition})
    # Two public names can mean one stored field, so nothing is merged.
    return {"$and": parts} if len(parts) > 1 else (parts[0] if parts else {})


def run_sort(sort: Sort) -> Sort:
    """The order under the record's names. Raises `Invalid` for a field that runs do not have."""
    return tuple((_stored(name, "sorters"), direction) for name, direction in sort)


def _branches(name: str, condition: Any, kind: RunKind, depth: int) -> list[dict[str, Any]]:
    if not isinstance(condition, list) or not all(isinstance(part, dict) for part in condition):
        raise Invalid(f"'{name}' takes a list of filters.", field="filters")
    return [run_filters(part, kind, depth + 1) for part in condition]


def _stored(name: str, field: str) -> str:
    try:
        return _NAMES[name]
    except KeyError:
        raise Invalid(
            f"Runs cannot be searched by '{name[:60]}'; there are: {', '.join(sorted(_NAMES))}.",
            field=field,
        ) from None


def _status(condition: Any, kind: RunKind) -> dict[str, Any]:
    """A condition on the public word, as the set of stored words for which it holds."""
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    allowed = {str(status) for status in RunStatus}
    for operator, operand in condition.items():
        words = operand if operator in ("$in", "$nin") else [operand]
        if operator not in ("$eq", "$ne", "$in", "$nin") or not isinstance(words, list):
            raise Invalid(
                "'status' can be compared with $eq, $ne, $in and $nin only.", field="filters"
            )
        named = {stored for word in words for stored in stored_statuses(kind, str(word))}
        allowed &= named if operator in ("$eq", "$in") else allowed - named
    return {"$in": sorted(allowed)}


def _dated(condition: Any) -> Any:
    if isinstance(condition, str):
        return _moment(condition)
    if isinstance(condition, list):
        return [_dated(part) for part in condition]
    if isinstance(condition, dict):
        return {operator: _dated(operand) for operator, operand in condition.items()}
    return condition


def _moment(text: str) -> datetime:
    """ISO or mail-style; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            raise Invalid(
                f"'{text[:40]}' is no date; write it as 2026-02-03T08:15:00Z or as "
                "'Tue, 03 Feb 2026 08:15:00 GMT'.",
                field="filters",
            ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

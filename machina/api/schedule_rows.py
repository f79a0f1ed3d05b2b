"""Schedules as the public API shows and searches them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.api.envelopes import mail_date
from machina.errors import Invalid
from machina.store.base import Sort
from machina.store.filters import rename_sort, rewrite_query
from machina.store.schedules import Schedule

_NAMES: Final[Mapping[str, str]] = {
    **{name: name for name in ("_id", "name", "agent", "agent_id", "type", "target", "interval")},
    **{name: name for name in ("cron", "timezone", "once", "allow_overlap", "paused", "error")},
    **{name: name for name in ("last_run_id", "fired", "skipped", "missed", "created", "updated")},
    "id": "_id",
    "date": "created",
    "next_execution": "next_at",
    "last_execution": "last_tick",
}
"""The public names that can be searched and sorted by, and those of the record behind them."""
_DATES: Final = ("next_execution", "last_execution", "created", "updated", "date")


def schedule_row(schedule: Schedule) -> dict[str, Any]:
    """A schedule as a row: what is started when, whether it fires, and how it went."""
    created = mail_date(schedule.created)
    return {
        "_id": schedule.id,
        "id": schedule.id,
        "name": schedule.name,
        "state": schedule.state,
        "paused": schedule.paused,
        "agent": schedule.agent,
        "agent_id": schedule.agent_id,
        "type": schedule.type,
        "target": schedule.target,
        "context": schedule.payload,
        "cron": schedule.cron,
        "interval": schedule.interval,
        "timezone": schedule.timezone,
        "once": schedule.once,
        "allow_overlap": schedule.allow_overlap,
        "next_execution": mail_date(schedule.next_at),
        "last_execution": mail_date(schedule.last_tick),
        "last_run_id": schedule.last_run_id,
        "error": schedule.error or schedule.last_error,
        "fired": schedule.fired,
        "skipped": schedule.skipped,
        "missed": schedule.missed,
        "created": created,
        "updated": mail_date(schedule.updated),
        "date": created,
    }


def schedule_filters(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The store's query for public filters.

    Raises:
        Invalid: a field that schedules do not have, an operator that is not allowed, or no date.
    """
    return dict(rewrite_query(filters, rename=_stored, dates=_DATES))


def schedule_sort(sort: Sort) -> Sort:
    """The order under the record's names. Raises `Invalid` for a field schedules do not have."""
    return rename_sort(sort, _stored)


def _stored(path: str) -> str:
    try:
        return _NAMES[path]
    except KeyError:
        raise Invalid(
            f"Schedules cannot be searched by '{path[:60]}'; there are: "
            f"{', '.join(sorted(_NAMES))}.",
            field="filters",
        ) from None

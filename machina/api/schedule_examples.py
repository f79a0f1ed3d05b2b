"""What the documentation shows of the routes of schedules."""

from __future__ import annotations

from typing import Final

from machina import errors
from machina.api.examples import RUN_ID, Responses, answer, page_example, refusals
from machina.runs.planned import ScheduleBusy

SEARCH_BODY: Final = {"filters": {"agent": "daily-report"}, "sorters": ["next_execution", 1]}
_DATE: Final = "Mon, 24 Nov 2026 12:00:00 GMT"
_ROW: Final = {
    "_id": "692431c2a1b2c3d4e5000009",
    "name": "daily-report:morning",
    "state": "active",
    "paused": False,
    "agent": "daily-report",
    "type": "agent",
    "target": "daily-report",
    "context": {"city": "Lisbon"},
    "cron": "0 8 * * mon-fri",
    "timezone": "Europe/Lisbon",
    "next_execution": _DATE,
    "last_execution": _DATE,
    "last_run_id": RUN_ID,
    "error": None,
    "fired": 12,
    "skipped": 0,
    "missed": 1,
}
_KEY: Final = (errors.Unauthenticated,)
_WRITE: Final = (*_KEY, errors.Forbidden, errors.Invalid, errors.NotFound, errors.StoreDown)
PAGE_ANSWERS: Final[Responses] = {
    200: answer("One page of schedules.", page_example(_ROW, 100), "Page"),
    **refusals(*_KEY, errors.Invalid, errors.StoreDown),
}
ROW_ANSWERS: Final[Responses] = {
    200: answer("The schedule.", {"data": _ROW, "status": True}),
    **refusals(*_KEY, errors.Invalid, errors.NotFound, errors.StoreDown),
}
CHANGE_ANSWERS: Final[Responses] = {
    200: answer(
        "The schedule as it is now.",
        {"data": _ROW, "message": "schedule resumed", "status": True},
    ),
    **refusals(*_WRITE, errors.Conflict),
}
TRIGGER_ANSWERS: Final[Responses] = {
    200: answer(
        "The run that was started.",
        {
            "data": {"run_id": RUN_ID, "agent_run_id": RUN_ID, "status": "scheduled"},
            "message": "schedule triggered",
            "status": True,
        },
    ),
    **refusals(*_WRITE, ScheduleBusy, errors.QueueDown),
}

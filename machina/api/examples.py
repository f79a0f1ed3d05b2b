"""What the documentation shows: bodies, answers and refusals, with examples that can be copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina import errors
from machina.api.problems import UnsupportedMediaType, problem_body

Responses = dict[int | str, dict[str, Any]]

RUN_ID: Final = "692431f0a1b2c3d4e5000001"
_AGENT_ID: Final = "692431c2a1b2c3d4e5000000"
_DATE: Final = "Mon, 24 Nov 2026 12:00:00 GMT"
_TOKENS: Final = {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42}

AGENT_STREAM_BODY: Final = {
    "messages": [{"role": "user", "content": "Hello"}],
    "stream_workflows": True,
}
AGENT_BODY: Final = {
    "context-agent": {"messages": [{"role": "user", "content": "Hello"}]},
    "agent-config": {"delay": False},
}
WORKFLOW_BODY: Final = {"context-workflow": {"city": "Lisbon"}}
RUN_SEARCH_BODY: Final = {
    "filters": {"status": "agent-executed", "created": {"$gte": "2026-11-01T00:00:00Z"}},
    "sorters": ["_id", -1],
    "page": 1,
    "page_size": 10,
}

PUBLIC: Final[dict[str, Any]] = {"security": []}
"""Marks an operation that needs no key."""

_EVENTS: Final = (
    '{"id":"1-1","type":"start","content":"","metadata":{"agent_name":"hello","task_id":"%s"}}',
    '{"id":"1-2","type":"content","content":"Good ","metadata":{"partial":true}}',
    '{"id":"1-3","type":"content","content":"Good morning","metadata":{"final":true}}',
    '{"id":"1-4","type":"done","content":"","metadata":{"status":"executed",'
    '"content":"Good morning","objects":[],"suggestions":[],"task_id":"%s"}}',
)


def body(example: Mapping[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a JSON object; unknown keys are never refused."""
    return {
        "requestBody": {
            "content": {
                "application/json": {
                    "schema": {"type": "object", "additionalProperties": True},
                    "example": example,
                }
            }
        }
    }


def page_example(row: Mapping[str, Any], page_size: int = 10) -> dict[str, Any]:
    """A page of one row."""
    return {
        "data": [row],
        "status": True,
        "total_documents": 1,
        "total": 1,
        "pagination": {"page": 1, "page_size": page_size, "total": 1, "total_documents": 1},
    }


def answer(description: str, example: Any, schema: str = "Answer") -> dict[str, Any]:
    """A successful answer of a route, with an example."""
    return {
        "description": description,
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "example": example,
            }
        },
    }


def refusals(*kinds: type[errors.MachinaError]) -> Responses:
    """The error answers of a route, by status; errors of one status share an entry."""
    by_status: Responses = {}
    for kind in kinds:
        content = by_status.setdefault(
            kind.status, {"description": kind.title, "content": {"application/problem+json": {}}}
        )["content"]["application/problem+json"]
        content["schema"] = {"$ref": "#/components/schemas/Problem"}
        example = {"summary": kind.title, "value": problem_body(kind(), instance="/…")}
        content.setdefault("examples", {})[kind.code] = example
    for status, answer in by_status.items():
        if status in (429, 503):
            answer["headers"] = {
                "Retry-After": {
                    "description": "Seconds after which to try again.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return by_status


def _stream(description: str) -> dict[str, Any]:
    lines = [line % RUN_ID if "%s" in line else line for line in _EVENTS]
    ids = [line[7:10] for line in lines]
    types = ["start", "content", "content", "done"]
    frames = [
        f"id: {id}\nevent: {type}\ndata: {line}\n\n"
        for id, type, line in zip(ids, types, lines, strict=True)
    ]
    schema = {"$ref": "#/components/schemas/Event"}
    header = {"schema": {"type": "string"}}
    return {
        "description": description,
        "headers": {
            "X-Run-Id": header | {"description": "Id of the run."},
            "X-Task-ID": header | {"description": "The same, under the name older clients read."},
            "Content-Location": header | {"description": "Where the stream can be resumed."},
        },
        "content": {
            "application/x-ndjson": {"schema": schema, "example": "\n".join([*lines, ""])},
            "text/event-stream": {"schema": schema, "example": "".join(frames)},
        },
    }


_KEY: Final = (errors.Unauthenticated,)
_BODY: Final = (errors.TooLarge, UnsupportedMediaType, errors.Invalid)
_START: Final = (
    *_KEY,
    errors.NotFound,
    errors.IdempotencyMismatch,
    *_BODY,
    errors.Draining,
    errors.StoreDown,
    errors.QueueDown,
)

STREAM_ANSWERS: Final[Responses] = {
    200: _stream("Events as they happen, one per line or frame; `done` is the last."),
    204: {"description": "SSE only: a join at the id of `done`; there is nothing to come."},
    **refusals(
        *_START,
        errors.MalformedEventId,
        errors.Overloaded,
        errors.BreakerOpen,
        errors.TooManyViewers,
        errors.LogDown,
    ),
}
RESUME_ANSWERS: Final[Responses] = {
    200: _stream("The events after the given id; `done` is the last."),
    204: {"description": "SSE only: the given id is that of `done`; there is nothing to come."},
    **refusals(
        *_KEY,
        errors.MalformedEventId,
        errors.NotFound,
        errors.ResumeAhead,
        errors.Gone,
        errors.Invalid,
        errors.Draining,
        errors.TooManyViewers,
        errors.LogDown,
    ),
}

_AGENT_HEAD: Final = {"agent_run_id": RUN_ID, "task_id": RUN_ID, "execution_id": RUN_ID}
AGENT_ANSWERS: Final[Responses] = {
    200: answer(
        "The final state under `response`; only the ids when it was queued or takes longer.",
        {
            "data": _AGENT_HEAD
            | {
                "status": "agent-executed",
                "execution_time": 1.9,
                "response": {"content": "Good morning", "objects": [], "suggestions": []},
            },
            "message": "agent executed",
            "status": True,
        },
    ),
    **refusals(*_START, errors.TaskFailed, errors.DeadlineExceeded),
}
WORKFLOW_ANSWERS: Final[Responses] = {
    200: answer(
        "The workflow's outputs next to id and status; `status` is `failed` for a failed run.",
        {
            "data": {"greeting": "Hi", "workflow_run_id": RUN_ID, "status": "executed"},
            "status": True,
        },
    ),
    **refusals(*_START),
}
SCHEDULED_ANSWERS: Final[Responses] = {
    200: answer(
        "The id to poll with.",
        {
            "data": {"workflow_run_id": RUN_ID, "status": "scheduled"},
            "message": "workflow scheduled",
            "status": True,
        },
    ),
    **refusals(*_START),
}
_READ: Final = (*_KEY, errors.NotFound, errors.Invalid, errors.StoreDown)
SCHEDULE_STATE_ANSWERS: Final[Responses] = {
    200: answer(
        "Where the run stands.",
        {
            "data": {
                "workflow_run_id": RUN_ID,
                "status": "executed",
                "workflow_output": {"greeting": "Hi"},
            },
            "status": True,
        },
    ),
    **refusals(*_READ),
}

_ROW: Final = {
    "_id": RUN_ID,
    "name": "hello",
    "status": "agent-executed",
    "agent_id": _AGENT_ID,
    "execution_time": 1.9,
    "total_workflows": 2,
    "completed_workflows": 2,
    "started_time": _DATE,
    "finished_time": _DATE,
    "date": _DATE,
    "created": _DATE,
    "updated": _DATE,
    "execution_tokens": _TOKENS,
    "thread_id": "692431f0a1b2c3d4e5000002",
}
RUN_ANSWERS: Final[Responses] = {
    200: answer("The run.", {"data": _ROW | {"response": {"content": "Hi"}}, "status": True}),
    **refusals(*_READ),
}
CANCEL_ANSWERS: Final[Responses] = {
    200: answer(
        "Where the run stands now.",
        {
            "data": {
                "run_id": RUN_ID,
                "status": "failed",
                "cancel_requested": True,
                "outcome": "cancelled",
            },
            "message": "run cancelled",
            "status": True,
        },
    ),
    **refusals(*_READ),
}
SEARCH_ANSWERS: Final[Responses] = {
    200: answer("One page of runs.", page_example(_ROW), "Page"),
    **refusals(*_KEY, *_BODY, errors.StoreDown),
}

"""The first and the last words of a run, made of its record alone. Pure.

The sequence is the one that every existing client renders correctly: the whole text once more as
a final `content`, an `error` before `done` when there is one, and `done` with the same text.
"""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.events import Event, encode_json
from machina.runs.run import Outcome, Run, RunStatus

MAX_EVENT_BYTES: Final = 900_000
"""Room for a `done` with its state; a larger state stays in the record only."""


def first_event(run: Run) -> Event:
    """`start` of the first attempt, `restart` of every later one.

    `restart` says what of the text shown so far still stands (`content`) and how many workflows are
    finished (`workflow_index`); a client takes back the rest.
    """
    metadata: dict[str, Any] = _names(run) | {"attempt": run.attempt}
    if run.attempt == 1:
        return Event("start", "", metadata)
    checkpoint = run.checkpoint
    return Event(
        "restart",
        "",
        metadata
        | {
            "workflow_index": checkpoint.workflow_index if checkpoint else 0,
            "content": checkpoint.content if checkpoint else "",
        },
    )


def repair_event(run: Run, outcome: Outcome) -> Event:
    """The `restart` that precedes the end of a finished run whose log was damaged."""
    text = outcome.content
    return Event(
        "restart",
        "",
        _names(run)
        | {"attempt": run.attempt, "workflow_index": run.total_workflows, "content": text},
    )


def terminal_events(run: Run, outcome: Outcome) -> list[Event]:
    """What ends the log: final `content`, `error` for a failure or a timeout, `done`."""
    text = final_text(outcome)
    events = []
    if text:
        events.append(Event("content", text, {"final": True}))
    if outcome.code is not None:
        events.append(Event("error", text, error_metadata(run, outcome)))
    events.append(Event("done", "", _done_metadata(run, outcome, text)))
    return events


def final_text(outcome: Outcome) -> str:
    """What the caller reads in the end: the answer, or the sentence that explains the failure."""
    if outcome.code is not None:
        return outcome.message or "The run failed."
    return outcome.content


def error_metadata(run: Run, outcome: Outcome) -> dict[str, Any]:
    """The same name before and after the first byte: type, title and code of the problem."""
    metadata: dict[str, Any] = {
        "code": outcome.code,
        "type": f"/errors/{outcome.code}",
        "title": "Deadline exceeded" if outcome.status is RunStatus.TIMEOUT else "Run failed",
        "message": outcome.message,
        "retryable": outcome.retryable,
        "run_id": run.id,
    }
    if outcome.workflow is not None:
        metadata["workflow_name"] = outcome.workflow
    if outcome.task is not None:
        metadata["task_name"] = outcome.task
    return metadata


def error_named(outcome: Outcome) -> dict[str, Any]:
    """The error of a run that has one: code, message, and where it came up."""
    return {"code": outcome.code, "message": outcome.message} | error_place(outcome)


def error_place(outcome: Outcome) -> dict[str, Any]:
    """The workflow and the task in which an error came up, as far as they are known."""
    places = {"workflow": outcome.workflow, "task": outcome.task}
    return {name: place for name, place in places.items() if place is not None}


def failure(error: errors.RunError, *, content: str = "") -> Outcome:
    """The outcome of a run that an error ended."""
    timed_out = isinstance(error, errors.DeadlineExceeded)
    return Outcome(
        status=RunStatus.TIMEOUT if timed_out else RunStatus.FAILED,
        content=content,
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        workflow=error.workflow,
        task=error.task,
    )


def _done_metadata(run: Run, outcome: Outcome, text: str) -> dict[str, Any]:
    metadata = _names(run) | {
        "status": str(outcome.status),
        "content": text,
        "objects": outcome.objects,
        "suggestions": outcome.suggestions,
        "thread_id": outcome.thread_id or run.thread_id,
        "attempt": run.attempt,
        "state": outcome.state,
    }
    if outcome.document_id is not None:
        metadata["document_id"] = outcome.document_id
    if outcome.code is not None:
        metadata["error"] = error_named(outcome)
    for key in ("state", "objects"):
        if len(encode_json(metadata)) <= MAX_EVENT_BYTES:
            break
        metadata[key] = {} if key == "state" else []
        metadata["truncated"] = True
    return metadata


def _names(run: Run) -> dict[str, Any]:
    kind = "agent" if run.kind == "agent" else "workflow"
    return {
        f"{kind}_id": run.target_id,
        f"{kind}_name": run.target_name,
        "task_id": run.id,
        "run_id": run.id,
        "thread_id": run.thread_id,
    }

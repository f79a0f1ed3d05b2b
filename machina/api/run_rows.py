"""Runs as the public API shows them: rows of the executions, and the answers of the executors."""

from __future__ import annotations

from typing import Any, Final

from machina.api.envelopes import mail_date
from machina.errors import MachinaError
from machina.runs.closing import error_place
from machina.runs.run import Outcome, Run, RunKind, RunStatus, public_status

_TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


class RunFailed(MachinaError):
    """A synchronous agent run ended in failure: an error answer, because clients print any other
    as completed.
    """

    code, title, status = "run_failed", "Run failed", 500


class RunTimedOut(RunFailed):
    """A synchronous agent run ran out of time."""

    code, title, status = "timeout", "Deadline exceeded", 504


def execution_row(run: Run, *, steps: bool, response: bool) -> dict[str, Any]:
    """A run as a row: under the names clients read, dates as mail dates, nothing of the inside."""
    created = mail_date(run.created)
    row: dict[str, Any] = {
        "_id": run.id,
        "name": run.target_name,
        "status": public_status(run.kind, run.status),
        f"{_noun(run.kind)}_id": run.target_id,
        "execution_time": execution_seconds(run),
        "total_workflows": run.total_workflows,
        "completed_workflows": _completed(run),
        "started_time": mail_date(run.started),
        "finished_time": mail_date(run.finished),
        "date": created,
        "created": created,
        "updated": mail_date(run.finished or run.started or run.created),
        "execution_tokens": {name: run.tokens.get(name, 0) for name in _TOKENS},
        "thread_id": run.thread_id,
    }
    if response:
        row["response"] = response_of(run)
    if steps:
        row["workflows"] = [dict(step) for step in run.steps]
        row["tasks"] = [dict(task) for task in run.tasks]
    if run.may_have_repeated:
        row["may_have_repeated"] = [dict(task) for task in run.may_have_repeated]
    return row | failure_of(run)


def failure_of(run: Run) -> dict[str, Any]:
    """What went wrong: the outcome behind the public word `failed`, and the error, if any."""
    outcome = run.outcome
    if outcome is None or run.status is RunStatus.EXECUTED:
        return {}
    failure: dict[str, Any] = {"outcome": str(run.status)}
    if outcome.code is not None:
        named = {"id": outcome.code, "message": outcome.message}
        failure["error"] = named | error_place(outcome)
    return failure


def response_of(run: Run) -> dict[str, Any]:
    """The result under the names of the stream's `done`, and the final state's own keys.

    Empty while the run goes on. The thread is always named, as in the stream.
    """
    outcome = run.outcome
    if outcome is None:
        return {}
    named = {
        "content": outcome.content,
        "objects": outcome.objects,
        "suggestions": outcome.suggestions,
        "document_id": outcome.document_id,
    }
    thread_id = outcome.state.get("thread_id") or outcome.thread_id or run.thread_id
    return named | outcome.state | {"thread_id": thread_id}


def execution_seconds(run: Run) -> float | None:
    """From the first claim to the end; None while either is missing."""
    if run.started is None or run.finished is None:
        return None
    return round((run.finished - run.started).total_seconds(), 3)


def agent_head(run: Run) -> dict[str, Any]:
    """What the executor of agents answers under `data` about a run it does not wait for."""
    return {
        "agent_run_id": run.id,
        "task_id": run.id,
        "execution_id": run.id,
        "status": public_status(run.kind, run.status),
    }


def agent_answer(run: Run) -> dict[str, Any]:
    """The same about a run it waited for; without `response` when that took too long.

    Raises:
        RunFailed: the run has ended and not well.
    """
    if run.outcome is None:
        return agent_head(run)
    if run.status is not RunStatus.EXECUTED:
        raise failed_run(run, run.outcome)
    return agent_head(run) | {
        "execution_time": execution_seconds(run),
        "response": response_of(run),
    }


def workflow_answer(run: Run) -> dict[str, Any]:
    """What the executor of workflows answers under `data`: the outputs next to id and status."""
    outputs = dict(run.outcome.state) if run.outcome is not None else {}
    # An output may be called `error` and is then the author's word; id and status are ours.
    return failure_of(run) | outputs | workflow_head(run)


def schedule_answer(run: Run) -> dict[str, Any]:
    """What a scheduled workflow answers under `data`; polled until `status` is a final word."""
    outputs = dict(run.outcome.state) if run.outcome is not None else {}
    return workflow_head(run) | failure_of(run) | {"workflow_output": outputs}


def workflow_head(run: Run) -> dict[str, Any]:
    """What every answer about a workflow's run says under `data`."""
    return {"workflow_run_id": run.id, "status": public_status(run.kind, run.status)}


def task_answer(run: Run) -> dict[str, Any]:
    """The whole answer about a single task: what it gave under `data`, which is of any type.

    One that takes longer than clients wait has its ids there.

    Raises:
        RunFailed: the task has ended and not well.
    """
    meta = {"run_id": run.id, "execution_time": execution_seconds(run)}
    if run.outcome is None:
        status = public_status(run.kind, run.status)
        head = {"run_id": run.id, "task_id": run.id, "status": status}
        return {"data": head, "message": "still running", "meta": meta, "status": True}
    if run.status is not RunStatus.EXECUTED:
        raise failed_run(run, run.outcome)
    state = run.outcome.state
    message = state.get("message") or "executed"
    return {"data": state.get("data"), "message": message, "meta": meta, "status": True}


def failed_run(run: Run, outcome: Outcome) -> RunFailed:
    """The error that a failed run is answered with; its details say which run it was."""
    failed = RunTimedOut if run.status is RunStatus.TIMEOUT else RunFailed
    fallback = "cancelled" if run.status is RunStatus.CANCELLED else None
    return failed(
        outcome.message or f"The run ended with status '{run.status}'.",
        code=outcome.code or fallback,
        retryable=outcome.retryable,
        details={"agent_run_id": run.id, "run_id": run.id, "run": f"/execution/agent-run/{run.id}"},
    )


def _noun(kind: RunKind) -> str:
    return "agent" if kind == "agent" else "workflow"


def _completed(run: Run) -> int:
    done = sum(1 for step in run.steps if step.get("status") in ("executed", "skipped"))
    return min(done, run.total_workflows) if run.total_workflows else done

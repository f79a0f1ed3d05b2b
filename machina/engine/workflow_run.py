"""Runs one workflow as a run of its own, from its beginning or from a checkpoint between tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.definitions import Kind
from machina.definitions.base import Authored, read_name, read_text
from machina.engine.borders import freeze, is_large, thaw
from machina.engine.context import RunContext
from machina.engine.progress import MESSAGE, Progress
from machina.engine.results import RunResult, make_result
from machina.engine.workflow import Frame, walk_workflow

CHECKPOINT_SECONDS: Final = 0.25
"""Checkpoints between tasks are not kept more often: they must cost less than what they save."""


async def run_workflow(
    workflow: Mapping[str, Any],
    payload: Mapping[str, Any],
    ctx: RunContext,
    *,
    start_at: int = 0,
    state: dict[str, Any] | None = None,
) -> RunResult:
    """Runs one workflow as a run of its own; its state is the workflow's outputs.

    A new attempt gives what the last checkpoint kept as `start_at`, a number of tasks, and `state`.

    Raises:
        MachinaError: the store or the log is not available; a `RunError` is in the result instead.
    """
    name = read_name(workflow, Kind.WORKFLOW)
    title = read_text(workflow, "title") or name
    progress = Progress(ctx, name, 1, 1)
    started = ctx.doors.now()
    await progress.started(title)
    frame = Frame(
        after_task=_Checkpoints(ctx).after_task,
        start_at=start_at if state is not None else 0,
        state=None if state is None else thaw(state, ctx.secrets),
    )
    outcome = await walk_workflow(workflow, payload, ctx, frame)
    result = await make_result(ctx, outcome.outputs, outcome.outputs, outcome.error)
    seconds = round(ctx.doors.now() - started, 3)
    await ctx.doors.step(step_record(workflow, name, result.status, seconds))
    if outcome.error is None:
        await progress.completed(title)
    else:
        await progress.failed(title, outcome.error)
    await progress.status(outcome.outputs.get(MESSAGE))
    await progress.objects(outcome.outputs.get("objects"), None)
    return result


def step_record(
    definition: Authored | None, name: str, status: str, seconds: float
) -> dict[str, Any]:
    """What the run's record keeps of one workflow."""
    record = {"name": name, "status": status, "execution_time": seconds}
    id = None if definition is None else definition.get("_id")
    return record if id is None else {"_id": str(id), **record}


class _Checkpoints:
    """Keeps the state between two tasks when that is cheap: now and then, and while it is small."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._kept_at = ctx.doors.now()

    async def after_task(self, done: int, state: dict[str, Any]) -> None:
        ctx = self._ctx
        if ctx.doors.now() - self._kept_at < CHECKPOINT_SECONDS or is_large(state):
            return
        frozen = freeze(state, ctx.hide)
        await ctx.doors.checkpoint(0, frozen, ctx.text, task_index=done)
        self._kept_at = ctx.doors.now()

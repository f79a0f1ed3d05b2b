"""Walks a workflow: payload and inputs make the state, tasks change it, outputs read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from machina.definitions import Kind, Task, Workflow, is_declaration
from machina.definitions.base import Authored, read_name
from machina.engine.blocks import evaluate_block
from machina.engine.context import RunContext
from machina.engine.credentials import Credentials
from machina.engine.results import RunResult, WorkflowOutcome, locate, make_result
from machina.engine.task_walk import TaskWalk
from machina.errors import BudgetExceeded, DefinitionMissing, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)

MAX_DEPTH: Final = 5
"""How deep workflows may run workflows; this also ends a circle of them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a workflow runs: inside which workflows, and under which agent's credentials."""

    outer: tuple[str, ...] = ()
    groups: Mapping[str, Any] | None = None


async def run_workflow(
    workflow: Mapping[str, Any], payload: Mapping[str, Any], ctx: RunContext
) -> RunResult:
    """Runs one workflow as a run of its own; its state is the workflow's outputs.

    Raises:
        MachinaError: the store or the log is not available; a `RunError` is in the result instead.
    """
    started = ctx.doors.now()
    outcome = await walk_workflow(workflow, payload, ctx, Frame())
    result = await make_result(outcome.outputs, outcome.outputs, ctx.text, outcome.error)
    await ctx.doors.step(
        {
            "name": read_name(workflow, Kind.WORKFLOW),
            "status": result.status,
            "execution_time": round(ctx.doors.now() - started, 3),
        }
    )
    return result


async def walk_workflow(
    raw: Authored, payload: Mapping[str, Any], ctx: RunContext, frame: Frame
) -> WorkflowOutcome:
    """Runs a workflow in place. A failure is in the outcome, with the outputs as far as it got."""
    try:
        workflow = Workflow.read(raw)
    except RunError as error:
        locate(error, read_name(raw, Kind.WORKFLOW))
        return WorkflowOutcome.of({}, error)
    return await _Walk(ctx, workflow, frame).run(payload)


class _Walk:
    """One walk through one workflow."""

    def __init__(self, ctx: RunContext, workflow: Workflow, frame: Frame) -> None:
        self._ctx = ctx
        self._workflow = workflow
        self._where = f"workflow '{workflow.name}'"
        self._frame = frame
        self._state: dict[str, Any] = {}
        self._failed_task: str | None = None
        layers = (workflow.context_variables, frame.groups or {})
        credentials = Credentials(layers, ctx.secrets)
        self._tasks = TaskWalk(ctx, workflow.name, credentials, self._run_inner)

    async def run(self, payload: Mapping[str, Any]) -> WorkflowOutcome:
        error: RunError | None = None
        try:
            self._state = {**payload, **await self._inputs(payload)}
            for raw in self._workflow.tasks:
                await self._task(raw)
        except RunError as failure:
            locate(failure, self._workflow.name)
            log.warning(
                "workflow.failed",
                workflow=failure.workflow,
                task=failure.task,
                code=failure.code,
                error=failure.message,
            )
            error = failure
        return await self._conclude(error)

    async def _inputs(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Computed inputs are evaluated on the payload; declared ones are taken from it."""
        computed, declared = {}, {}
        for key, value in self._workflow.inputs.items():
            if is_declaration(value):
                declared[key] = payload[key] if key in payload else value.get("default")
            else:
                computed[key] = value
        scope = Scope(payload, context=payload, secrets=self._ctx.secrets)
        where = f"{self._where}, inputs"
        return {**declared, **await evaluate_block(self._ctx, computed, scope, where)}

    async def _task(self, raw: Authored) -> None:
        name = read_name(raw, "task")
        try:
            await self._tasks.walk(Task.read(raw), self._state)
        except RunError as error:
            locate(error, self._workflow.name, name)
            if raw.get("continue_on_error") is not True:
                self._failed_task = name
                raise
            log.warning(
                "task.failed",
                workflow=self._workflow.name,
                task=name,
                code=error.code,
                error=error.message,
                continues=True,
            )

    async def _conclude(self, error: RunError | None) -> WorkflowOutcome:
        """A failed workflow gives outputs too: of the state it reached."""
        outputs: dict[str, Any] = {}
        scope = Scope(self._state, context=self._state, secrets=self._ctx.secrets)
        where = f"{self._where}, outputs"
        try:
            await evaluate_block(self._ctx, self._workflow.outputs, scope, where, into=outputs)
        except BudgetExceeded as blown:
            locate(blown, self._workflow.name)
            error = error or blown
        return WorkflowOutcome.of(outputs, error, self._failed_task)

    async def _run_inner(self, name: str, payload: Mapping[str, Any]) -> WorkflowOutcome:
        """Runs another workflow inside this one; see `RunWorkflow`."""
        outer = (*self._frame.outer, self._workflow.name)
        if len(outer) > MAX_DEPTH:
            raise BudgetExceeded(
                f"Workflows may run workflows {MAX_DEPTH} deep, not "
                f"{' → '.join((*outer, name))}; does one of them run itself?"
            )
        raw = await self._ctx.doors.definition(Kind.WORKFLOW, name)
        if raw is None:
            raise DefinitionMissing(f"The workflow '{name}' is not installed; install it.")
        return await walk_workflow(raw, payload, self._ctx, Frame(outer, self._frame.groups))

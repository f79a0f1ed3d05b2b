"""Walks a workflow: payload and inputs make the state, tasks change it, outputs read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from machina.definitions import Kind, Task, Workflow, is_declaration
from machina.definitions.base import Authored, read_name, read_text
from machina.engine.blocks import evaluate_block
from machina.engine.context import RunContext
from machina.engine.credentials import Credentials, is_debugged
from machina.engine.results import WorkflowOutcome, locate, refuse_deep
from machina.engine.task_log import Trace
from machina.engine.task_walk import TaskWalk
from machina.engine.tasks.subworkflow import OPERATIONS, learn_secret
from machina.errors import BudgetExceeded, DefinitionMissing, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)

MAX_DEPTH: Final = 5
"""How deep workflows may run workflows; this also ends a circle of them."""

AfterTask = Callable[[int, dict[str, Any]], Awaitable[None]]
"""Told how many tasks are done, and the state they made."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a workflow runs: inside which workflows, and under which agent's credentials."""

    outer: tuple[str, ...] = ()
    groups: Mapping[str, Any] | None = None
    after_task: AfterTask | None = None
    start_at: int = 0
    state: dict[str, Any] | None = None
    """What the tasks before `start_at` made in an earlier attempt; None: start from the payload."""


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
        self._is_debugged = is_debugged(layers)
        credentials = Credentials(layers, ctx.secrets)
        self._tasks = TaskWalk(ctx, workflow.name, credentials, self._run_inner)

    async def run(self, payload: Mapping[str, Any]) -> WorkflowOutcome:
        error: RunError | None = None
        try:
            await self._walk(payload)
        except RunError as failure:
            locate(failure, self._workflow.name)
            self._ctx.seal(failure)
            log.warning(
                "workflow.failed",
                workflow=failure.workflow,
                task=failure.task,
                code=failure.code,
                error=failure.message,
            )
            error = failure
        return await self._conclude(error)

    async def _walk(self, payload: Mapping[str, Any]) -> None:
        frame = self._frame
        if frame.state is None:
            self._state = {**payload, **await self._inputs(payload)}
        else:
            self._state = dict(frame.state)
        tasks = self._workflow.tasks
        for done, raw in enumerate(tasks[frame.start_at :], start=frame.start_at + 1):
            await self._task(raw)
            if frame.after_task is not None and done < len(tasks):
                await frame.after_task(done, self._state)

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
        started = self._ctx.doors.now()
        trace = Trace()
        try:
            ran = await self._tasks.walk(Task.read(raw), self._state, trace)
        except RunError as error:
            locate(error, self._workflow.name, name)
            self._note(raw, started, "failed", trace, error=self._ctx.seal(error))
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
        else:
            self._note(raw, started, "executed" if ran else "skipped", trace)

    def _note(
        self,
        raw: Authored,
        started: float,
        status: str,
        trace: Trace,
        error: RunError | None = None,
    ) -> None:
        """Adds the task to the run's log; a skipped one with the condition that did not hold."""
        condition = raw.get("condition", raw.get("when")) if status == "skipped" else None
        self._ctx.tasks.add(
            self._workflow.name,
            (read_text(raw, "type") or "", read_name(raw, "task")),
            status,
            self._ctx.doors.now() - started,
            error=error,
            condition=condition,
            trace=trace if self._is_debugged else None,
        )

    async def _conclude(self, error: RunError | None) -> WorkflowOutcome:
        """A failed workflow gives outputs too: of the state it reached."""
        outputs: dict[str, Any] = {}
        scope = Scope(self._state, context=self._state, secrets=self._ctx.secrets)
        where = f"{self._where}, outputs"
        try:
            await evaluate_block(self._ctx, self._workflow.outputs, scope, where, into=outputs)
            blown = refuse_deep(outputs, self._where)
        except BudgetExceeded as raised:
            blown = raised
        if blown is not None:
            locate(blown, self._workflow.name)
            error = error or blown
        return WorkflowOutcome.of(outputs, error, self._failed_task)

    async def _run_inner(self, name: str, payload: Mapping[str, Any]) -> WorkflowOutcome:
        """Runs another workflow inside this one; see `RunWorkflow`."""
        raw = await self._ctx.doors.definition(Kind.WORKFLOW, name)
        if raw is None and name in OPERATIONS:
            if name == "vault-update":
                learn_secret(self._ctx.redactor, payload)
            return WorkflowOutcome.of(await self._ctx.doors.operate(name, payload))
        outer = (*self._frame.outer, self._workflow.name)
        if len(outer) > MAX_DEPTH:
            raise BudgetExceeded(
                f"Workflows may run workflows {MAX_DEPTH} deep, not "
                f"{' → '.join((*outer, name))}; does one of them run itself?"
            )
        if raw is None:
            raise DefinitionMissing(f"The workflow '{name}' is not installed; install it.")
        frame = replace(self._frame, outer=outer, after_task=None, start_at=0, state=None)
        return await walk_workflow(raw, payload, self._ctx, frame)

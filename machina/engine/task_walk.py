"""Walks one task: inputs, condition, loop, the call itself, outputs, in the order of the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from machina.definitions import Foreach, Task
from machina.engine.blocks import check_conditions, evaluate_block, evaluate_value
from machina.engine.context import RunContext
from machina.engine.credentials import Credentials, connector_defaults
from machina.engine.loops import Kept, merge_outputs, read_items, run_items
from machina.engine.task_log import Trace
from machina.engine.tasks import TaskCall, TaskResult, run_task
from machina.engine.tasks.base import RunWorkflow
from machina.errors import InternalError, MachinaError, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)

State = dict[str, Any]

READING: Final = "search"
"""The action of a `document` task that changes nothing."""


@dataclass(frozen=True, slots=True)
class TaskWalk:
    """Walks the tasks of one workflow. The state is changed in place, as far as a task gets."""

    ctx: RunContext
    workflow: str
    credentials: Credentials
    run_workflow: RunWorkflow

    async def walk(self, task: Task, state: State, trace: Trace) -> bool:
        """Runs a task on the state. False: its condition did not hold, the state is unchanged.

        Raises:
            RunError: the task failed; its inputs are in the state, its outputs are not.
        """
        one = await self._one(task, state, trace)
        if task.foreach is not None:
            return await one.loop(task.foreach)
        return await one.once()

    async def _one(self, task: Task, state: State, trace: Trace) -> _OneTask:
        connector = task.connector.get("name")
        own = self.credentials.own(connector, await connector_defaults(self.ctx, connector))
        others = self.credentials.others(connector)
        return _OneTask(self, task, state, trace, own, (others,) if others else ())


@dataclass(frozen=True, slots=True)
class _OneTask:
    """One task on its way through a workflow, with the credentials that it sees."""

    walk: TaskWalk
    task: Task
    state: State
    trace: Trace
    own: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...]

    async def once(self) -> bool:
        """A task without a loop."""
        inputs = await self._inputs({})
        self.trace.inputs = inputs
        if not await self._is_due(inputs):
            return False
        self.state.update(inputs)
        new = await self._call({}, inputs)
        self.trace.outputs = new
        self.state.update(new)
        return True

    async def loop(self, loop: Foreach) -> bool:
        """The condition is asked once; iterations do not see what the others gave."""
        if self.task.conditions:
            # Inputs that need the loop variable have no value yet and must not hide the state's.
            trial = await self._inputs({}, quiet=True)
            known = {key: value for key, value in trial.items() if value is not None}
            if not await self._is_due(known):
                return False
        where = self._where
        value = await evaluate_value(
            self.walk.ctx, loop.value, self._scope({}, {}), f"{where}, foreach.value"
        )
        kept = Kept(where)

        async def one(_: int, item: Any) -> tuple[State, State]:
            variable = {loop.name: item}
            inputs = await self._inputs(variable)
            self.trace.inputs = inputs
            try:
                new = await self._call(variable, inputs)
            except RunError as error:
                if not self.task.continue_on_error:
                    raise
                self.walk.ctx.seal(error)
                log.warning("iteration.failed", where=where, code=error.code, error=error.message)
                return inputs, {}
            kept.add(new)
            return inputs, new

        items = read_items(value, where)
        width = self.walk.ctx.width if loop.concurrent else None
        iterations = await run_items(items, one, width)
        if iterations:
            self.state.update(iterations[-1][0])
        new = merge_outputs(outputs for _, outputs in iterations)
        self.trace.outputs = new
        self.state.update(new)
        return True

    async def _inputs(self, variable: State, *, quiet: bool = False) -> State:
        scope = self._scope(variable, {})
        where = f"{self._where}, inputs"
        return await evaluate_block(self.walk.ctx, self.task.inputs, scope, where, quiet=quiet)

    async def _is_due(self, inputs: State) -> bool:
        if not self.task.conditions:
            return True
        scope = self._scope({}, inputs)
        where = f"{self._where}, condition"
        due, _ = await check_conditions(self.walk.ctx, self.task.conditions, scope, where)
        if not due:
            log.debug("task.skipped", where=self._where, condition=self.task.conditions)
        return due

    async def _call(self, variable: State, inputs: State) -> State:
        """One execution; the new values of the state."""
        ctx = self.walk.ctx
        ctx.count_call(self._where)
        if _has_side_effects(self.task):
            ctx.note_repeat(self.walk.workflow, self.task.name)
        seen = {**self.state, **variable, **inputs}
        result = await _run(
            TaskCall(
                ctx,
                self.task,
                inputs,
                seen,
                self._scope(variable, inputs),
                self._where,
                self.walk.run_workflow,
                self.own,
            )
        )
        new: State = {}
        scope = Scope(
            result.subject,
            context=seen,
            fallbacks=(new, *result.fallbacks),  # an output may read an earlier one of its task
            secrets=ctx.secrets,
        )
        where = f"{self._where}, outputs"
        return await evaluate_block(ctx, self.task.outputs, scope, where, into=new)

    def _scope(self, variable: State, inputs: Mapping[str, Any]) -> Scope:
        """`$` in the task's own expressions: its connector's fields hide the state's."""
        return Scope(
            {**self.state, **self.own, **variable, **inputs},
            context={**self.state, **variable, **inputs},
            fallbacks=self.others,
            secrets=self.walk.ctx.secrets,
        )

    @property
    def _where(self) -> str:
        return f"task '{self.task.name}' of workflow '{self.walk.workflow}'"


async def _run(call: TaskCall) -> TaskResult:
    try:
        return await run_task(call)
    except MachinaError:
        raise
    except Exception as defect:  # a task's own defect must be that task's failure
        log.exception("task.defect", where=call.where)
        raise InternalError(
            f"The server failed inside {call.where}; its log has the details."
        ) from defect


def _has_side_effects(task: Task) -> bool:
    """Whether a task does something that a second attempt would do again."""
    if task.type == "document":
        config = task.raw.get("config")
        return not isinstance(config, Mapping) or config.get("action") != READING
    return task.type in ("connector", "workflow")

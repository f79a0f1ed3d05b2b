"""Walks one task: inputs, condition, loop, the call itself, outputs, in the order of the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from machina.definitions import Foreach, Task
from machina.engine.blocks import check_conditions, evaluate_block, evaluate_value
from machina.engine.context import RunContext
from machina.engine.credentials import Credentials
from machina.engine.loops import merge_outputs, read_items, run_items
from machina.engine.tasks import TaskCall, TaskResult, run_task
from machina.engine.tasks.base import RunWorkflow
from machina.errors import InternalError, MachinaError, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TaskWalk:
    """Walks the tasks of one workflow. The state is changed in place, as far as a task gets."""

    ctx: RunContext
    workflow: str
    credentials: Credentials
    run_workflow: RunWorkflow

    async def walk(self, task: Task, state: State) -> bool:
        """Runs a task on the state. False: its condition did not hold, the state is unchanged.

        Raises:
            RunError: the task failed; its inputs are in the state, its outputs are not.
        """
        if task.foreach is not None:
            return await self._loop(task, task.foreach, state)
        inputs = await self._inputs(task, state, {})
        if not await self._is_due(task, state, inputs):
            return False
        state.update(inputs)
        state.update(await self._call(task, state, {}, inputs))
        return True

    async def _loop(self, task: Task, loop: Foreach, state: State) -> bool:
        """The condition is asked once; iterations do not see what the others gave."""
        if task.conditions:
            # Inputs that need the loop variable have no value yet and must not hide the state's.
            trial = await self._inputs(task, state, {}, quiet=True)
            known = {key: value for key, value in trial.items() if value is not None}
            if not await self._is_due(task, state, known):
                return False
        where = self._where(task)
        scope = self._scope(task, state, {}, {})
        value = await evaluate_value(self.ctx, loop.value, scope, f"{where}, foreach.value")

        async def one(_: int, item: Any) -> tuple[State, State]:
            variable = {loop.name: item}
            inputs = await self._inputs(task, state, variable)
            try:
                return inputs, await self._call(task, state, variable, inputs)
            except RunError as error:
                if not task.continue_on_error:
                    raise
                log.warning("iteration.failed", where=where, code=error.code, error=error.message)
                return inputs, {}

        items = read_items(value, where)
        iterations = await run_items(items, one, self.ctx.width if loop.concurrent else None)
        if iterations:
            state.update(iterations[-1][0])
        state.update(merge_outputs(outputs for _, outputs in iterations))
        return True

    async def _inputs(
        self, task: Task, state: State, variable: State, *, quiet: bool = False
    ) -> State:
        scope = self._scope(task, state, variable, {})
        where = f"{self._where(task)}, inputs"
        return await evaluate_block(self.ctx, task.inputs, scope, where, quiet=quiet)

    async def _is_due(self, task: Task, state: State, inputs: State) -> bool:
        if not task.conditions:
            return True
        where = self._where(task)
        scope = self._scope(task, state, {}, inputs)
        due, _ = await check_conditions(self.ctx, task.conditions, scope, f"{where}, condition")
        if not due:
            log.debug("task.skipped", where=where, condition=task.conditions)
        return due

    async def _call(self, task: Task, state: State, variable: State, inputs: State) -> State:
        """One execution; the new values of the state."""
        seen = {**state, **variable, **inputs}
        result = await self._run(
            TaskCall(
                self.ctx,
                task,
                inputs,
                seen,
                self._scope(task, state, variable, inputs),
                self._where(task),
                self.run_workflow,
            )
        )
        new: State = {}
        scope = Scope(
            result.subject,
            context=seen,
            fallbacks=(new, *result.fallbacks),  # an output may read an earlier one of its task
            secrets=self.ctx.secrets,
        )
        where = f"{self._where(task)}, outputs"
        return await evaluate_block(self.ctx, task.outputs, scope, where, into=new)

    async def _run(self, call: TaskCall) -> TaskResult:
        try:
            return await run_task(call)
        except MachinaError:
            raise
        except Exception as defect:  # a task's own defect must be that task's failure
            log.exception("task.defect", where=call.where)
            raise InternalError(
                f"The server failed inside {call.where}; its log has the details."
            ) from defect

    def _scope(self, task: Task, state: State, variable: State, inputs: Mapping[str, Any]) -> Scope:
        """`$` in the task's own expressions: its connector's fields hide the state's."""
        connector = task.connector.get("name")
        others = self.credentials.others(connector)
        return Scope(
            {**state, **self.credentials.own(connector), **variable, **inputs},
            context={**state, **variable, **inputs},
            fallbacks=(others,) if others else (),
            secrets=self.ctx.secrets,
        )

    def _where(self, task: Task) -> str:
        return f"task '{task.name}' of workflow '{self.workflow}'"

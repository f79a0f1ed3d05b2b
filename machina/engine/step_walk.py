"""Walks one step of an agent: its condition, its loop, its workflow, what that gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from machina.definitions import Step
from machina.definitions.base import Authored
from machina.engine.blocks import check_conditions, evaluate_block, evaluate_value
from machina.engine.context import RunContext
from machina.engine.loops import Kept, read_items, run_items
from machina.engine.results import WorkflowOutcome, locate, refuse_deep
from machina.engine.workflow import Frame, walk_workflow
from machina.errors import BudgetExceeded, DefinitionMissing, ExpressionFailed, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Iteration:
    """What one run of a step's workflow gave: its outputs, and what they add to the state."""

    outputs: Mapping[str, Any]
    new: State
    error: RunError | None


@dataclass(frozen=True, slots=True)
class StepWalk:
    """Walks the steps of one agent. The state is only read: what a step adds comes back."""

    ctx: RunContext
    agent: str
    frame: Frame
    is_whole: bool
    """The step is all there is to its agent: it gets the state, and gives all its outputs."""

    async def is_due(self, step: Step, state: State) -> tuple[bool, ExpressionFailed | None]:
        """Whether the step's conditions hold; a condition that raised comes back as well.

        Raises:
            BudgetExceeded: a condition used too much.
        """
        if step.unsupported is not None:
            log.warning("step.unsupported", step=step.name, type=step.unsupported)
            return False, None
        where = f"condition of {self._where(step)}"
        return await check_conditions(self.ctx, step.conditions, self._scope(state, {}), where)

    async def iterate(
        self, step: Step, definition: Authored | None, state: State
    ) -> list[Iteration]:
        """Runs the step's workflow once, or once per item; a failure is in its iteration."""
        try:
            if definition is None:
                raise DefinitionMissing(
                    f"The workflow '{step.name}' is not installed; install it or remove the step."
                )
            variables = await self._variables(step, state)
        except RunError as error:
            return [await self._give(step, state, {}, _failed(step, error))]
        workflow = definition
        kept = Kept(self._where(step))

        async def one(_: int, variable: State) -> Iteration:
            try:
                self.ctx.count_call(self._where(step))
                payload = await self._payload(step, state, variable)
                outcome = await walk_workflow(workflow, payload, self.ctx, self.frame)
            except RunError as error:
                outcome = _failed(step, error)
            iteration = await self._give(step, state, variable, outcome)
            if step.foreach is not None:
                try:
                    kept.add({"outputs": iteration.outputs, "new": iteration.new})
                except BudgetExceeded as error:
                    return Iteration({}, {}, error)
            return iteration

        concurrent = step.foreach is not None and step.foreach.concurrent
        return await run_items(variables, one, self.ctx.width if concurrent else None)

    async def _variables(self, step: Step, state: State) -> list[State]:
        """The loop variable of each iteration; a step without a loop has one without."""
        if step.foreach is None:
            return [{}]
        where = self._where(step)
        value = await evaluate_value(
            self.ctx, step.foreach.value, self._scope(state, {}), f"foreach.value of {where}"
        )
        return [{step.foreach.name: item} for item in read_items(value, where)]

    async def _payload(self, step: Step, state: State, variable: State) -> State:
        """A workflow gets the loop's item and the step's inputs, and nothing else of the state."""
        if self.is_whole:
            return dict(state)
        where = f"inputs of {self._where(step)}"
        scope = self._scope(state, variable)
        return {**variable, **await evaluate_block(self.ctx, step.inputs, scope, where)}

    async def _give(
        self, step: Step, state: State, variable: State, outcome: WorkflowOutcome
    ) -> Iteration:
        """Evaluates the step's outputs: on the workflow's, falling back to the agent's state."""
        if self.is_whole:
            return Iteration(outcome.outputs, dict(outcome.outputs), outcome.error)
        new: State = {}
        seen = {**state, **variable}
        scope = Scope(
            outcome.outputs, context=seen, fallbacks=(new, seen), secrets=self.ctx.secrets
        )
        error = outcome.error
        try:
            where = f"outputs of {self._where(step)}"
            await evaluate_block(self.ctx, step.outputs, scope, where, into=new)
            error = error or refuse_deep(new, self._where(step))
        except BudgetExceeded as blown:
            error = error or blown
        return Iteration(outcome.outputs, new, error)

    def _scope(self, state: State, variable: State) -> Scope:
        """`$` in a step is the state and the loop variable; `context` is the state alone."""
        subject = {**state, **variable} if variable else state
        return Scope(subject, context=state, secrets=self.ctx.secrets)

    def _where(self, step: Step) -> str:
        return f"step '{step.name}' of agent '{self.agent}'"


def _failed(step: Step, error: RunError) -> WorkflowOutcome:
    locate(error, step.name)
    return WorkflowOutcome.of({}, error)

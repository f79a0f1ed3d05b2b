"""Walks an agent: payload and context make the state, each step runs a workflow on a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import structlog

from machina.definitions import Agent, Kind, Step
from machina.definitions.base import Authored, read_name, read_text
from machina.engine.blocks import evaluate_block
from machina.engine.borders import Hide, Reveal, cross_border, freeze, thaw
from machina.engine.context import RunContext
from machina.engine.loops import merge_outputs
from machina.engine.progress import MESSAGE, Progress
from machina.engine.results import RunResult, locate, make_result
from machina.engine.standing import Standing
from machina.engine.step_walk import StepWalk
from machina.engine.workflow import Frame
from machina.engine.workflow_run import step_record
from machina.errors import RunError, TaskTypeUnknown
from machina.expressions import Scope

log = structlog.get_logger(__name__)

State = dict[str, Any]
StepStatus = Literal["executed", "failed", "skipped"]


async def run_agent(
    agent: Mapping[str, Any],
    payload: Mapping[str, Any],
    ctx: RunContext,
    *,
    start_at: int = 0,
    state: dict[str, Any] | None = None,
) -> RunResult:
    """Runs an agent. A new attempt gives what the last checkpoint kept as `start_at` and `state`.

    Raises:
        MachinaError: the store or the log is not available; a `RunError` is in the result instead.
    """
    name = read_name(agent, Kind.AGENT)
    try:
        walk = _AgentWalk(ctx, Agent.read(agent))
        return await walk.run(payload, start_at, state)
    except RunError as error:
        result = RunResult.failed(error, ctx)
        log.warning("agent.failed", agent=name, code=error.code, error=error.message)
        return result


class _AgentWalk:
    """One walk through one agent."""

    def __init__(self, ctx: RunContext, agent: Agent) -> None:
        self._ctx = ctx
        self._agent = agent
        self._steps = agent.steps or _entry_step(agent)
        self._is_whole = not agent.steps
        self._where = f"agent '{agent.name}'"
        frame = Frame(groups=agent.context_variables)
        self._walk = StepWalk(ctx, agent.name, frame, self._is_whole)
        self._state: State = {}
        self._standing = Standing()

    async def run(
        self, payload: Mapping[str, Any], start_at: int, state: State | None
    ) -> RunResult:
        if state is None:
            self._state = await self._begin(payload)
        else:
            kept = dict(state)
            self._standing = Standing.load(kept)
            self._state = thaw(kept, self._ctx.secrets)
        for number, raw in enumerate(self._steps[start_at:], start=start_at + 1):
            await self._step(number, raw)
        produced = self._produced(payload)
        return await make_result(self._ctx, self._state, produced, self._standing.failure)

    async def _begin(self, payload: Mapping[str, Any]) -> State:
        """The context, under the payload, under what the agent reads of the payload."""
        defaults = {
            read_name(parameter, "parameter"): parameter["default"]
            for parameter in self._agent.parameters
            if "default" in parameter
        }
        missing = {name: value for name, value in defaults.items() if name not in payload}
        scope = Scope(payload, context=payload, secrets=self._ctx.secrets)
        where = f"{self._where}, context-agent"
        return {
            **self._agent.context,
            **payload,
            **await evaluate_block(self._ctx, missing, scope, where),
            **await evaluate_block(self._ctx, self._agent.context_agent, scope, where),
        }

    async def _step(self, number: int, raw: Authored) -> None:
        """One step, and what is kept of it."""
        name = read_name(raw, "step")
        started = self._ctx.doors.now()
        progress = Progress(self._ctx, name, number, len(self._steps))
        status, definition = await self._walk_step(raw, name, progress)
        seconds = round(self._ctx.doors.now() - started, 3)
        await self._ctx.doors.step(step_record(definition, name, status, seconds))
        if status == "skipped":
            return  # nothing changed: a new attempt would skip it again
        hide, reveal = self._ctx.hide, self._ctx.secrets
        frozen, self._state = await cross_border(
            lambda state: _settle(state, hide, reveal), self._state
        )
        kept = {**frozen, **self._standing.save()}
        await self._ctx.doors.checkpoint(number, kept, self._ctx.text)
        self._ctx.in_doubt = False  # an earlier attempt was not further than in this step

    async def _walk_step(
        self, raw: Authored, name: str, progress: Progress
    ) -> tuple[StepStatus, Authored | None]:
        """How the step ended, and the workflow it ran, if there is one."""
        try:
            step = Step.read(raw)
            due, doubt = await self._walk.is_due(step, self._state)
        except RunError as error:  # a broken step, or a condition that used too much
            await progress.started(name)
            return await self._end_step(name, name, error, progress), None
        if not due:
            if doubt is not None:
                locate(doubt, name)
                self._standing.doubt(doubt)
            await progress.skipped()
            return "skipped", None
        definition = await self._ctx.doors.definition(Kind.WORKFLOW, name)
        title = read_text(definition or {}, "title") or name
        await progress.started(title)
        iterations = await self._walk.iterate(step, definition, self._state)
        new = merge_outputs(iteration.new for iteration in iterations)
        before = self._state.get("objects")
        self._state.update(new)
        failure = next((i.error for i in iterations if i.error is not None), None)
        status = await self._end_step(name, title, failure, progress)
        said = [new, *(iteration.outputs for iteration in reversed(iterations))]
        await progress.status(next((s[MESSAGE] for s in said if s.get(MESSAGE)), None))
        await progress.objects(new.get("objects"), before)
        return status, definition

    async def _end_step(
        self, name: str, title: str, error: RunError | None, progress: Progress
    ) -> StepStatus:
        if error is None:
            self._standing.succeed()
            await progress.completed(title)
            return "executed"
        locate(error, name)
        self._standing.fail(self._ctx.seal(error))
        log.warning("step.failed", step=name, code=error.code, error=error.message)
        await progress.failed(title, error)
        return "failed"

    def _produced(self, payload: Mapping[str, Any]) -> set[str]:
        """The state's keys that the agent made, as opposed to those its caller sent."""
        if self._is_whole:
            return {k for k, v in self._state.items() if k not in payload or payload[k] != v}
        blocks = (raw.get("outputs") for raw in self._steps)
        return {str(key) for block in blocks if isinstance(block, Mapping) for key in block}


def _settle(state: State, hide: Hide | None, reveal: Reveal | None) -> tuple[State, State]:
    """What a checkpoint keeps of a state, and what a new attempt would make of that."""
    frozen = freeze(state, hide)
    return frozen, thaw(frozen, reveal)


def _entry_step(agent: Agent) -> list[Authored]:
    """The one step of an agent that is just a workflow.

    Raises:
        TaskTypeUnknown: the agent carries tasks of its own instead.
    """
    if agent.entry_point is not None:
        return [{"name": agent.entry_point}]
    if agent.has_tasks:
        raise TaskTypeUnknown(
            f"The agent '{agent.name}' carries tasks of its own, which this server does not run; "
            "put them into a workflow and name it under 'workflows'."
        )
    return []

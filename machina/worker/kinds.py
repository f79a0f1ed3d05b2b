"""What is run for each kind of run: an agent, a workflow, a skill, or one call."""

from __future__ import annotations

from typing import Any

from machina.definitions import Agent
from machina.engine import (
    RunContext,
    RunResult,
    run_agent,
    run_single,
    run_skill,
    run_workflow,
)
from machina.errors import DefinitionMissing
from machina.runs.run import Checkpoint, Run


async def run_kind(run: Run, context: RunContext) -> RunResult:
    """Runs what the run is about, from its checkpoint if it has one.

    Raises:
        DefinitionMissing: it was uninstalled while the run waited.
        RunError: the definition cannot be read.
    """
    if run.kind == "task":
        return await run_single(run.inputs, context)
    definition = await context.doors.definition(run.kind, run.target_name)
    if definition is None:
        raise DefinitionMissing(
            f"The {run.kind} '{run.target_name}' is not installed any more; install it again."
        )
    kept = run.checkpoint or Checkpoint(workflow_index=0, state={}, content="")
    state = kept.state if run.checkpoint is not None else None
    run.steps = run.steps[: kept.workflow_index]
    if run.kind == "agent":
        run.total_workflows = Agent.read(definition).total_workflows
        return await run_agent(
            definition, run.inputs, context, start_at=kept.workflow_index, state=state
        )
    run.total_workflows = 1
    return await _run_one(run, definition, context, kept, state)


async def _run_one(
    run: Run,
    definition: dict[str, Any],
    context: RunContext,
    kept: Checkpoint,
    state: dict[str, Any] | None,
) -> RunResult:
    if run.kind == "workflow":
        return await run_workflow(
            definition, run.inputs, context, start_at=kept.task_index, state=state
        )
    return await run_skill(
        definition,
        run.inputs,
        context,
        workflow_index=kept.workflow_index,
        task_index=kept.task_index,
        state=state,
    )

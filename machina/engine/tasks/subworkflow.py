"""The `workflow` task: runs another workflow in place, with the task's inputs as payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from machina.engine.tasks.base import TaskCall, TaskResult
from machina.errors import DefinitionInvalid

OPERATIONS: Final = frozenset(
    ("workflow-search", "workflow-schedule", "workflow-schedule-get")
) | frozenset(("vault-search", "vault-update"))
"""Names of what the server does itself; an installed workflow of the same name goes first."""


async def run_subworkflow(call: TaskCall) -> TaskResult:
    """`$` in the outputs is the workflow's outputs and the `run_id`; its failure is the task's.

    An output of its own called `run_id` stands: `workflow-schedule` gives that of another run.
    """
    outcome = await call.run_workflow(_name(call), call.inputs)
    if outcome.error is not None:
        raise outcome.error
    return TaskResult({"run_id": call.ctx.run_id, **outcome.outputs})


def _name(call: TaskCall) -> str:
    named = call.task.raw.get("workflow")
    name = named.get("name") if isinstance(named, Mapping) else named
    if not isinstance(name, str) or not name:
        raise DefinitionInvalid(f"{call.where} names no workflow; give it a 'workflow.name'.")
    return name

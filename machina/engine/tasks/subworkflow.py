"""The `workflow` task: runs another workflow in place, with the task's inputs as payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.engine.tasks.base import TaskCall, TaskResult
from machina.errors import DefinitionInvalid
from machina.events import encode_json
from machina.observability.redaction import Redactor

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


def learn_secret(redactor: Redactor, inputs: Mapping[str, Any]) -> None:
    """Hides what `vault-update` gets from now on, under the name that the vault keeps it by."""
    name, value = inputs.get("name"), inputs.get("value")
    if isinstance(value, Mapping | list):
        value = encode_json(value).decode()
    redactor.learn(name.strip().removeprefix("$") if isinstance(name, str) else "", value)


def _name(call: TaskCall) -> str:
    named = call.task.raw.get("workflow")
    name = named.get("name") if isinstance(named, Mapping) else named
    if not isinstance(name, str) or not name:
        raise DefinitionInvalid(f"{call.where} names no workflow; give it a 'workflow.name'.")
    return name

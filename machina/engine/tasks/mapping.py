"""The `mapping` task: evaluates the outputs of an installed mapping on the task's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from machina.definitions import Kind, is_declaration
from machina.definitions.base import read_block
from machina.engine.blocks import evaluate_block, evaluate_value
from machina.engine.tasks.base import TaskCall, TaskResult
from machina.expressions import Scope

log = structlog.get_logger(__name__)


async def run_mapping(call: TaskCall) -> TaskResult:
    """`$` in the task's outputs is its inputs overlaid with what the mapping gives.

    A mapping that nobody installed gives nothing: then the task's inputs are all there is.

    Raises:
        DefinitionInvalid: a block of the mapping has the wrong shape.
        BudgetExceeded: one of its expressions used too much.
    """
    name = await _name(call)
    mapping = await call.ctx.doors.definition(Kind.MAPPING, name)
    if mapping is None:
        log.info("mapping.undefined", where=call.where, mapping=name)
        return TaskResult(dict(call.inputs))
    owner = f"mapping '{name}'"
    where = f"{call.where}, {owner}"
    inputs = await _with_defaults(call, read_block(mapping, "inputs", owner), where)
    given: dict[str, Any] = {}
    # A later output may read an earlier one.
    scope = Scope(inputs, context=call.state, fallbacks=(given,), secrets=call.ctx.secrets)
    outputs = read_block(mapping, "outputs", owner)
    await evaluate_block(call.ctx, outputs, scope, f"{where}, outputs", into=given)
    return TaskResult({**inputs, **given})


async def _name(call: TaskCall) -> str:
    """The mapping that the task's configuration names, else the one of the task's own name."""
    config = call.task.raw.get("config")
    named = config.get("mapping") if isinstance(config, Mapping) else None
    where = f"{call.where}, config.mapping"
    name = await evaluate_value(call.ctx, named, call.scope, where)
    return name if isinstance(name, str) and name else call.task.name


async def _with_defaults(call: TaskCall, defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The task's inputs, and what the mapping says about those that are missing."""
    missing = {key: value for key, value in defaults.items() if key not in call.inputs}
    declared = {k: value.get("default") for k, value in missing.items() if is_declaration(value)}
    computed = {key: value for key, value in missing.items() if key not in declared}
    scope = Scope(call.inputs, context=call.state, secrets=call.ctx.secrets)
    return {
        **call.inputs,
        **declared,
        **await evaluate_block(call.ctx, computed, scope, f"{where}, inputs"),
    }

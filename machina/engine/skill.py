"""Runs a skill: one of its entries, with inputs made of the payload and outputs of the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog

from machina.definitions import Kind
from machina.definitions.base import Authored, read_block, read_name, read_parts, read_text
from machina.engine.agent import run_agent
from machina.engine.blocks import evaluate_block
from machina.engine.context import RunContext
from machina.engine.results import ERROR, STATUS, RunResult, make_result
from machina.engine.workflow_run import run_workflow
from machina.errors import DefinitionInvalid, DefinitionMissing, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)


class _Entry(NamedTuple):
    kind: Kind
    raw: Authored


async def run_skill(
    skill: Mapping[str, Any],
    payload: Mapping[str, Any],
    ctx: RunContext,
    *,
    workflow_index: int = 0,
    task_index: int = 0,
    state: dict[str, Any] | None = None,
) -> RunResult:
    """Runs the entry point of a skill, else the first of its workflows, else of its agents.

    An entry without inputs gets the payload as it is, one without outputs gives the whole result.
    A new attempt gives what the last checkpoint kept.

    Raises:
        MachinaError: the store or the log is not available; a `RunError` is in the result instead.
    """
    name = read_name(skill, Kind.SKILL)
    try:
        entry = _find_entry(skill, name)
        where = f"entry '{read_name(entry.raw, 'entry')}' of skill '{name}'"
        inputs = await _inputs(entry, payload, ctx, where)
        definition = await ctx.doors.definition(entry.kind, read_name(entry.raw, "entry"))
        if definition is None:
            raise DefinitionMissing(
                f"The {entry.kind} of {where} is not installed; install it with its template."
            )
        if entry.kind is Kind.AGENT:
            result = await run_agent(definition, inputs, ctx, start_at=workflow_index, state=state)
        else:
            result = await run_workflow(definition, inputs, ctx, start_at=task_index, state=state)
        return await _mapped(entry, result, payload, ctx, where)
    except RunError as error:
        failed = RunResult.failed(error, ctx)
        log.warning("skill.failed", skill=name, code=error.code, error=error.message)
        return failed


def _find_entry(skill: Authored, name: str) -> _Entry:
    workflows, agents = (_entries(skill, key, name) for key in ("workflows", "agents"))
    named = read_text(skill, "entry-point") or read_text(skill, "entry_point")
    if named is not None:
        found = next((raw for raw in workflows if raw.get("name") == named), {"name": named})
        return _Entry(Kind.WORKFLOW, found)
    if workflows:
        return _Entry(Kind.WORKFLOW, workflows[0])
    if agents:
        return _Entry(Kind.AGENT, agents[0])
    raise DefinitionInvalid(
        f"The skill '{name}' has nothing to run; name a workflow under 'workflows'."
    )


def _entries(skill: Authored, key: str, name: str) -> list[Authored]:
    """The entries of one kind; a bare name is an entry too."""
    value = skill.get(key)
    if isinstance(value, list):
        value = [{"name": item} if isinstance(item, str) else item for item in value]
    return read_parts({key: value}, key, f"skill '{name}'")


async def _inputs(
    entry: _Entry, payload: Mapping[str, Any], ctx: RunContext, where: str
) -> Mapping[str, Any]:
    block = read_block(entry.raw, "inputs", where)
    if not block:
        return payload
    scope = Scope(payload, context=payload, secrets=ctx.secrets)
    return await evaluate_block(ctx, block, scope, f"inputs of {where}")


async def _mapped(
    entry: _Entry, result: RunResult, payload: Mapping[str, Any], ctx: RunContext, where: str
) -> RunResult:
    block = read_block(entry.raw, "outputs", where)
    if not block:
        return result
    scope = Scope(result.state, context=payload, secrets=ctx.secrets)
    outputs = await evaluate_block(ctx, block, scope, f"outputs of {where}")
    kept: dict[str, Any] = {
        key: result.state[key] for key in (STATUS, ERROR) if key in result.state
    }
    mapped = await make_result(ctx, {**kept, **outputs}, outputs, result.error)
    mapped.content = mapped.content or result.content
    mapped.objects = mapped.objects or result.objects
    mapped.suggestions = mapped.suggestions or result.suggestions
    mapped.thread_id = mapped.thread_id or result.thread_id
    mapped.document_id = mapped.document_id or result.document_id
    return mapped

"""Evaluates the filters of a document task, with its inputs over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.engine.blocks import evaluate_value
from machina.engine.tasks.base import TaskCall
from machina.engine.tasks.documents import marks
from machina.engine.tasks.documents.queries import Selection, select
from machina.errors import BudgetExceeded, ExpressionFailed, TaskFailed
from machina.expressions import Scope

CONTROL: Final = ("search-", "threshold-")
"""Inputs that begin like this steer a search, and are no filters."""
_IDS: Final = ("_id", "document_id")


def scope_of(call: TaskCall, subject: Mapping[str, Any] | None = None) -> Scope:
    """`$` in filters, documents and metadata: the state overlaid with the inputs.

    Not the fields of the task's connector: a document must not keep a credential by accident.
    """
    return Scope(subject or call.state, context=call.state, secrets=call.ctx.secrets)


async def read_selection(call: TaskCall, *, with_inputs: bool = False) -> Selection:
    """What the task's filters select; `with_inputs`: its inputs are filters, too, and win.

    Raises:
        ExpressionFailed: a filter raised.
        TaskFailed: a filter that cannot be one.
    """
    inputs = await _marked_inputs(call)
    filters = await _filters(call, inputs)
    if with_inputs:
        for key, value in inputs.items():
            # A null input is one that nobody gave, and takes no filter away; an id is asked for.
            if not key.startswith(CONTROL) and (value is not None or key in _IDS):
                filters[key] = marks.unmark(value)
    return select(filters, call.where)


async def _filters(call: TaskCall, inputs: Mapping[str, Any]) -> dict[Any, Any]:
    raw = call.task.raw.get("filters")
    if raw is None:
        return {}
    scope = scope_of(call, {**call.state, **inputs})
    try:
        value = await evaluate_value(call.ctx, marks.mark(raw), scope, f"{call.where}, filters")
    except BudgetExceeded:
        raise
    except ExpressionFailed as error:
        error.message = marks.plain(error.message)
        error.details = {key: marks.plain(detail) for key, detail in error.details.items()}
        raise
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TaskFailed(
            f"filters of {call.where} are a {type(value).__name__}; write a dictionary of filters."
        )
    return dict(marks.unmark(value))


async def _marked_inputs(call: TaskCall) -> dict[str, Any]:
    """The task's inputs, with the operators marked that its own text puts there.

    They are evaluated once more for that, now with the inputs in view; the marks count only where
    both evaluations agree.
    """
    inputs = dict(call.inputs)
    for key, raw in call.task.inputs.items():
        if key not in inputs or not marks.has_operators(raw):
            continue
        where = f"{call.where}, inputs.{key}"
        try:
            marked = await evaluate_value(call.ctx, marks.mark(raw), call.scope, where)
        except BudgetExceeded:
            raise
        except ExpressionFailed:
            continue  # what raised before, and was logged, is null already
        inputs[key] = marks.transfer(marked, inputs[key])
    return inputs

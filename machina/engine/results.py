"""What a walk gives back: a workflow's outputs, and the result of a whole run."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from machina.engine.borders import MAX_LEVELS, as_json, cross_border, is_deep
from machina.engine.context import RunContext
from machina.errors import BudgetExceeded, RunError

STATUS: Final = "workflow-status"
ERROR: Final = "workflow-error"
ANSWER_KEYS: Final = ("response_text", "content", "message")
"""Where a final state says its answer, first non-empty text first."""


@dataclass(frozen=True, slots=True)
class WorkflowOutcome:
    """What one workflow gave: its outputs, and the error that stopped it, if one did."""

    outputs: dict[str, Any]
    error: RunError | None = None

    @classmethod
    def of(
        cls, outputs: Mapping[str, Any], error: RunError | None = None, task: str | None = None
    ) -> WorkflowOutcome:
        """Adds the status: the author's own word stands, unless the workflow failed.

        `task` is the workflow's own task that failed; the error itself may come from deeper.
        """
        if error is None:
            return cls({STATUS: "executed", **outputs})
        said = {"task": task, "code": error.code, "message": error.message}
        return cls({**outputs, STATUS: "failed", ERROR: said}, error)


@dataclass(slots=True)
class RunResult:
    """How a run ended. `state` is JSON: an agent's final state, a workflow's outputs."""

    status: Literal["executed", "failed"]
    state: dict[str, Any] = field(default_factory=dict)
    content: str = ""
    objects: list[Any] = field(default_factory=list)
    suggestions: list[Any] = field(default_factory=list)
    thread_id: str | None = None
    document_id: str | None = None
    error: RunError | None = None

    @classmethod
    def failed(cls, error: RunError, ctx: RunContext) -> RunResult:
        """The result of a run that an error ended before it had a state."""
        return cls("failed", content=ctx.text, error=ctx.seal(error))


async def make_result(
    ctx: RunContext, state: dict[str, Any], produced: Container[str], error: RunError | None
) -> RunResult:
    """Picks what clients expect out of the final state, and takes every secret out of it.

    Only `produced` keys, those that outputs name, can be the answer: a caller's own `message` in
    the payload is not one. What was streamed is the answer when no key is.
    """
    plain = await cross_border(lambda whole: ctx.redactor.value(as_json(whole)), state)
    said = {key: value for key, value in plain.items() if key in produced}
    return RunResult(
        "executed" if error is None else "failed",
        state=plain,
        content=next(filter(None, (_text(said, key) for key in ANSWER_KEYS)), ctx.text),
        objects=_list(said, "objects"),
        suggestions=_list(said, "suggestions"),
        thread_id=_text(plain, "thread_id") or None,
        document_id=_text(plain, "document_id") or None,
        error=None if error is None else ctx.seal(error),
    )


def refuse_deep(values: dict[str, Any], where: str) -> BudgetExceeded | None:
    """Makes null of values that are nested too deep to be kept; returns the error to fail with."""
    deep = [key for key, value in values.items() if is_deep(value)]
    for key in deep:
        values[key] = None
    if not deep:
        return None
    return BudgetExceeded(
        f"'{deep[0]}' in the outputs of {where} is nested more than {MAX_LEVELS} levels deep; give "
        "back the part that is needed."
    )


def locate(error: RunError, workflow: str, task: str | None = None) -> None:
    """Notes where an error came up; what a deeper level noted stands."""
    if error.workflow is None:
        error.workflow, error.task = workflow, error.task or task


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    value = values.get(key)
    return value if isinstance(value, list) else []

"""What a type of task is: a coroutine that takes a call and gives what `$` is in the outputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from machina.definitions import Task
from machina.engine.context import RunContext
from machina.engine.results import WorkflowOutcome
from machina.expressions import Scope

RunWorkflow = Callable[[str, Mapping[str, Any]], Awaitable[WorkflowOutcome]]


@dataclass(frozen=True, slots=True)
class TaskCall:
    """One execution of a task: once, or once per item of its loop."""

    ctx: RunContext
    task: Task
    inputs: dict[str, Any]
    """The task's evaluated inputs."""
    state: Mapping[str, Any]
    """The workflow's state with the inputs and the loop variable in it."""
    scope: Scope
    """What `$` is in the other expressions of the task: state, inputs, credentials."""
    where: str
    """The workflow and the task, for messages."""
    run_workflow: RunWorkflow
    """Runs an installed workflow in place, by name, with a payload.

    Raises:
        DefinitionMissing: it is not installed.
        BudgetExceeded: workflows are nested too deep.
    """
    credentials: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The resolved context variables of the task's connector: of the workflow, else of the agent,
    else its own."""
    is_data: bool = False
    """The task was asked for over the API: its connector block and prompt are no expressions."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What `$` is in the task's outputs, and where its lookups go on when a key is missing."""

    subject: Any
    fallbacks: tuple[Mapping[str, Any], ...] = ()


class RunTask(Protocol):
    """Runs one call of a task.

    Raises:
        RunError: the task failed.
    """

    async def __call__(self, call: TaskCall, /) -> TaskResult: ...

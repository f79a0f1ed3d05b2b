"""The table of task types. A new type is a module and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from machina.engine.tasks.base import RunTask, TaskCall, TaskResult
from machina.engine.tasks.connector import run_connector
from machina.engine.tasks.documents import run_document
from machina.engine.tasks.expression import run_expression
from machina.engine.tasks.mapping import run_mapping
from machina.engine.tasks.prompt import run_prompt
from machina.engine.tasks.subworkflow import run_subworkflow
from machina.errors import TaskTypeUnknown

TASK_TYPES: Final[Mapping[str, RunTask]] = {
    "connector": run_connector,
    "document": run_document,
    "expression": run_expression,
    "mapping": run_mapping,
    "prompt": run_prompt,
    "workflow": run_subworkflow,
}


async def run_task(call: TaskCall) -> TaskResult:
    """Runs a task by its type.

    Raises:
        TaskTypeUnknown: there is no such type on this server.
        RunError: the task failed.
    """
    run = TASK_TYPES.get(call.task.type)
    if run is None:
        raise TaskTypeUnknown(
            f"The type of {call.where} is '{call.task.type}', which this server does not run; "
            f"use one of {', '.join(TASK_TYPES)} or remove the task."
        )
    return await run(call)


__all__ = ["TASK_TYPES", "TaskCall", "TaskResult", "run_task"]

"""The `expression` task: nothing happens but its inputs and outputs."""

from __future__ import annotations

from machina.engine.tasks.base import TaskCall, TaskResult


async def run_expression(call: TaskCall) -> TaskResult:
    """`$` in the outputs is the state overlaid with the inputs."""
    return TaskResult(call.state)

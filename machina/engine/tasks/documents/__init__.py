"""The `document` task: searches and writes the documents of the run's project."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from machina.engine.document_door import Document
from machina.engine.tasks.base import TaskCall, TaskResult
from machina.engine.tasks.documents.bulk import bulk_save, bulk_update
from machina.engine.tasks.documents.config import read_config
from machina.engine.tasks.documents.search import search
from machina.engine.tasks.documents.writing import save, update
from machina.errors import TaskFailed

Action = Callable[[TaskCall, Mapping[str, Any]], Awaitable[list[Document]]]

ACTIONS: Final[Mapping[str, Action]] = {
    "search": search,
    "update": update,
    "save": save,
    "bulk-update": bulk_update,
    "bulk-save": bulk_save,
}


async def run_document(call: TaskCall) -> TaskResult:
    """`$` in the outputs is `{documents: […]}`; what it lacks is looked for in the state.

    Raises:
        TaskFailed: an action that templates do not have, or what the action raises.
    """
    config = await read_config(call)
    name = config.get("action")
    action = ACTIONS.get(name.strip().replace("_", "-")) if isinstance(name, str) else None
    if action is None:
        raise TaskFailed(
            f"The action {name!r:.80} of {call.where} is not available to templates; use one of "
            f"{', '.join(ACTIONS)}."
        )
    return TaskResult({"documents": await action(call, config)}, (call.state,))


__all__ = ["run_document"]

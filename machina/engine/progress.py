"""What an agent says about its workflows: the events a client shows while it waits."""

from __future__ import annotations

from typing import Final

import structlog

from machina.engine.context import RunContext
from machina.errors import RunError
from machina.events import Event, EventType, encode_json

MESSAGE: Final = "stream_status_message"
"""The output that is shown to the client as soon as its workflow has ended."""

log = structlog.get_logger(__name__)

MAX_OBJECTS_BYTES: Final = 700_000
"""A longer list of objects is in the run's record only: an event has to fit into one line."""


class Progress:
    """The events of one step: its place among `total` is `number`, from 1.

    Events about workflows and their objects are for clients that asked for them; a status message
    is for every client that streams.
    """

    def __init__(self, ctx: RunContext, name: str, number: int, total: int) -> None:
        self._ctx = ctx
        self._name = name
        self._number = number
        self._total = total

    async def started(self, title: str) -> None:
        text = f"Step {self._number} of {self._total}: {title}"
        await self._workflow("workflow_start", text, done=self._number - 1)

    async def completed(self, title: str) -> None:
        await self._workflow("workflow_complete", f"Finished: {title}", success=True)

    async def skipped(self) -> None:
        await self._workflow("workflow_skipped", f"Skipped: {self._name}")

    async def failed(self, title: str, error: RunError) -> None:
        await self._workflow(
            "workflow_error",
            f"Failed: {title}",
            success=False,
            code=error.code,
            message=error.message,
            task_name=error.task,
        )

    async def status(self, message: object) -> None:
        """Shows what the agent is doing, when there is something to show."""
        if self._ctx.streamed and isinstance(message, str) and message:
            names = {"status_message": message, "workflow_name": self._name}
            await self._ctx.emit(Event("status_update", message, names))

    async def objects(self, objects: object, before: object) -> None:
        """Shows the objects so far; an empty list only when it replaces one that was shown."""
        if not self._ctx.stream_workflows or not isinstance(objects, list):
            return
        if not objects and not before:
            return
        event = Event("workflow_objects", "", {"objects": objects, "workflow_name": self._name})
        size = len(encode_json(event.metadata))
        if size > MAX_OBJECTS_BYTES:
            log.warning("objects.too_large", workflow=self._name, bytes=size)
            return
        await self._ctx.emit(event)

    async def _workflow(
        self, type: EventType, text: str, *, done: int | None = None, **more: object
    ) -> None:
        if not self._ctx.stream_workflows:
            return
        done = self._number if done is None else done
        metadata = {
            "workflow_name": self._name,
            "workflow_index": self._number,
            "total_workflows": self._total,
            "progress_percent": 100 * done // self._total,
            **{name: value for name, value in more.items() if value is not None},
        }
        await self._ctx.emit(Event(type, text, metadata))

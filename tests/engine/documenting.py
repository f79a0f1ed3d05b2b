"""Document tasks in one line each, over a real store, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from machina.engine import RunResult
from machina.ids import RunId
from machina.queue.names import Queue
from machina.runs.run import Run
from machina.store import Store
from machina.store.base import Record
from machina.worker.documents import RunDocuments
from tests.builders import World, workflow

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
THREAD = "f" * 24


def make_run(**fields: Any) -> Run:
    """A run that reads and writes documents."""
    values: dict[str, Any] = {
        "id": RunId("65f000000000000000000001"),
        "project": "default",
        "principal": "p",
        "kind": "workflow",
        "target_id": "65f000000000000000000002",
        "target_name": "flow",
        "queue": Queue.NORMAL,
        "inputs": {},
        "created": NOW,
        "queue_deadline": NOW + timedelta(hours=1),
        "wake_at": NOW,
        "limit_seconds": 60.0,
        "thread_id": THREAD,
        "thread_reserved": True,
    }
    return Run(**values | fields)


def document(action: str, /, **fields: Any) -> dict[str, Any]:
    """A document task; `config` is added to, `document_name` and the like as keywords."""
    config = {"action": action, **fields.pop("config", {})}
    outputs = fields.pop("outputs", {"found": "$.get('documents')"})
    return {"type": "document", "name": "work", "config": config, "outputs": outputs, **fields}


class Desk:
    """Runs document tasks against a store, in the name of one run."""

    def __init__(self, store: Store, run: Run | None = None) -> None:
        self.store = store
        self.run = run or make_run()
        self.world = World(documents=RunDocuments(self.run, store.documents))

    async def execute(
        self,
        *tasks: Mapping[str, Any],
        outputs: Mapping[str, Any] | None = None,
        **payload: Any,
    ) -> RunResult:
        """Runs a workflow of these tasks."""
        flow = workflow(*map(dict, tasks), outputs=outputs or {"found": "$.get('found')"})
        return await self.world.run(flow, payload)

    async def do(self, task: Mapping[str, Any], **payload: Any) -> Any:
        """What a task leaves in `found`; the task must not fail."""
        result = await self.execute(task, **payload)
        assert result.error is None, result.error
        return result.state["found"]

    async def fail(self, task: Mapping[str, Any], **payload: Any) -> str:
        """The message of a task that must fail."""
        result = await self.execute(task, **payload)
        assert result.error is not None
        return f"{result.error.code}: {result.error.message}"

    async def search(self, filters: Any, **payload: Any) -> list[Any]:
        """The values of what matches these filters, in the order of their values."""
        found = await self.do(
            document("search", filters=filters, config={"search-limit": 100}), **payload
        )
        return sorted((row["value"] for row in found), key=str)

    async def put(self, name: str, value: Any, **fields: Any) -> Record:
        """Adds a document past the engine."""
        return await self.store.documents.insert(
            "default", {"name": name, "value": value, **fields}
        )

    async def stored(self, name: str | None = None) -> Sequence[Record]:
        """All documents of a name, the oldest first."""
        query = {} if name is None else {"name": name}
        return await self.store.documents.find("default", query, sort=[("_id", 1)], limit=10_000)

"""What the engine may ask of the outside while it executes one attempt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, cast

from machina.connectors.llm.base import Provider
from machina.errors import Fenced, StoreDown
from machina.runs.records import RunRecords
from machina.runs.run import Checkpoint, Run
from machina.store.definitions import DefinitionStore, Kind

T = TypeVar("T")

PATIENCE_SECONDS: Final = 30.0
"""How long a step waits for a store that does not answer before the attempt is given up."""
PAUSE_SECONDS: Final = 0.25


class AttemptDoors:
    """The engine's doors for one attempt: definitions and providers in, progress out."""

    def __init__(
        self,
        run: Run,
        records: RunRecords,
        definitions: DefinitionStore,
        provider_for: Callable[[Mapping[str, Any]], Provider],
    ) -> None:
        self._run = run
        self._records = records
        self._definitions = definitions
        self._provider_for = provider_for

    async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
        """The definition as authored; None when the project has none of this name or id."""
        project = self._run.project
        return await _patiently(lambda: self._definitions.get(project, cast(Kind, kind), name))

    def provider(self, connector: Mapping[str, Any]) -> Provider:
        """The provider that serves a prompt task's connector block."""
        return self._provider_for(connector)

    async def step(self, record: dict[str, Any]) -> None:
        """Notes the progress of one workflow; kept with the next checkpoint or the end."""
        self._run.steps.append(record)

    async def checkpoint(self, workflow_index: int, state: dict[str, Any], content: str) -> None:
        """Keeps what a new attempt goes on from; `state` is JSON already."""
        kept = Checkpoint(workflow_index, state, content)
        if not await _patiently(lambda: self._records.save_progress(self._run, kept)):
            raise Fenced("The run has a newer attempt; nothing more may be kept of this one.")

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()


async def _patiently(action: Callable[[], Awaitable[T]]) -> T:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await action()
        except StoreDown:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)

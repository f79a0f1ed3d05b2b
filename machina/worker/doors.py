"""What the engine may ask of the outside while it executes one attempt."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, cast

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.llm.base import Provider, RoutedEmbedder
from machina.connectors.registry import Connectors
from machina.errors import Fenced
from machina.runs.records import RunRecords
from machina.runs.run import Checkpoint, Run
from machina.store.definitions import DefinitionStore, Kind
from machina.worker.documents import RunDocuments
from machina.worker.operations import RunOperations
from machina.worker.patience import patiently
from machina.worker.providers import Providers
from machina.worker.run_files import RunFiles
from machina.worker.secrets import RunSecrets
from machina.worker.uploads import Uploads


class AttemptDoors:
    """The engine's doors for one attempt: definitions and providers in, progress out."""

    def __init__(
        self,
        run: Run,
        records: RunRecords,
        definitions: DefinitionStore,
        providers: Providers,
        connectors: Connectors,
        secrets: RunSecrets,
        operations: RunOperations,
        documents: RunDocuments,
        uploads: Uploads,
        files: RunFiles,
    ) -> None:
        self.documents = documents
        self._run = run
        self._records = records
        self._definitions = definitions
        self._providers = providers
        self._connectors = connectors
        self._secrets = secrets
        self._operations = operations
        self._uploads = uploads
        self._files = files

    async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
        """The definition as authored; None when the project has none of this name or id."""
        project = self._run.project
        found = await patiently(lambda: self._definitions.get(project, cast(Kind, kind), name))
        await patiently(lambda: self._secrets.prepare(found))
        return found

    def provider(self, connector: Mapping[str, Any]) -> Provider:
        """The provider that serves a prompt task's connector block."""
        return self._providers.provider_for(connector)

    def serves_model(self, connector_name: str) -> bool:
        """Whether the routing table knows this connector."""
        return self._providers.serves(connector_name)

    def embedder(self, connector: Mapping[str, Any]) -> RoutedEmbedder:
        """The embedder for a connector block."""
        return self._providers.embedder_for(connector)

    async def call_connector(self, call: ConnectorCall) -> ConnectorReply:
        """Runs one command of a connector."""
        await patiently(lambda: self._uploads.lay(self._run))
        return await self._connectors.call(call)

    async def operate(self, name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one of the built-in operations."""
        key = uuid.uuid4().hex
        outputs = await patiently(lambda: self._operations.do(name, inputs, key))
        if name == "vault-update":
            await patiently(self._secrets.refresh)
        return outputs

    async def step(self, record: dict[str, Any]) -> None:
        """Notes the progress of one workflow; kept with the next checkpoint or the end."""
        self._run.steps.append(record)

    async def checkpoint(
        self, workflow_index: int, state: dict[str, Any], content: str, *, task_index: int = 0
    ) -> None:
        """Keeps what a new attempt goes on from; `state` is JSON already."""
        earlier = self._run.checkpoint
        has_files = (earlier is not None and earlier.has_files) or (
            self._connectors.keeps(self._run.id) and await self._files.are_here(self._run.id)
        )
        kept = Checkpoint(workflow_index, state, content, task_index, has_files)
        if not await patiently(lambda: self._records.save_progress(self._run, kept)):
            raise Fenced("The run has a newer attempt; nothing more may be kept of this one.")

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

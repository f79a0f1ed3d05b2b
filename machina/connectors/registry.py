"""The connectors of one worker process: which of them answers a call, and when it is forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from machina.connectors.base import MODEL_COMMANDS, Connector, ConnectorCall, ConnectorReply
from machina.connectors.rest.legacy import is_legacy
from machina.errors import ConnectorFailed

REST: Final = "restapi"
SCRIPT: Final = "pyscript"
HTTP: Final = "http"
"""The name of the built-in connector; one that is installed under it hides it."""

CallModel = Callable[[ConnectorCall], Awaitable[ConnectorReply]]
_ENDINGS: Final = {".py": SCRIPT, ".json": REST, ".yml": REST, ".yaml": REST}


@runtime_checkable
class KeepsRuns(Protocol):
    """A type of connector that keeps something per run."""

    async def forget(self, run_id: str) -> None:
        """Ends and removes what the run left."""

    async def leave(self, run_id: str) -> None:
        """Ends what waits for the run's next call; what a new attempt may need stays."""


@runtime_checkable
class KeepsOpen(Protocol):
    """A type of connector that keeps something open."""

    async def aclose(self) -> None:
        """Closes it."""


class Connectors:
    """Finds the type of a connector and calls it.

    Args:
        types: what answers, by `filetype`.
        http: the built-in connector of that name.
        call_model: answers the pairs of a model's name and one of `MODEL_COMMANDS`.
        serves_model: whether a connector of this name stands for a model.
    """

    def __init__(
        self,
        types: Mapping[str, Connector],
        http: Connector,
        call_model: CallModel | None = None,
        serves_model: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._types = types
        self._http = http
        self._call_model = call_model
        self._serves_model = serves_model
        self._called: set[str] = set()

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        """Runs the command.

        Raises:
            ConnectorFailed: see `connectors.base.Connector`.
        """
        if call.command in MODEL_COMMANDS and self._serves_model(call.name):
            if self._call_model is None:
                raise ConnectorFailed(
                    f"{call.where} asks connector '{call.name}' for a model, which only a prompt "
                    "task can use; make it a task of the type prompt.",
                    code="command_unknown",
                )
            return await self._call_model(call)
        connector = self._find(call)
        self._called.add(call.run_id)
        return await connector.call(call)

    def keeps(self, run_id: str) -> bool:
        """Whether a run has called a connector here and was not forgotten since."""
        return run_id in self._called

    async def forget(self, run_id: str) -> None:
        """Drops what connectors keep of a run. Does nothing for a run that made no call here."""
        if run_id not in self._called:
            return
        self._called.discard(run_id)
        for connector in self._types.values():
            if isinstance(connector, KeepsRuns):
                await connector.forget(run_id)

    async def leave(self, run_id: str) -> None:
        """Ends what waits for another call of a run whose attempt here is over."""
        for connector in self._types.values():
            if isinstance(connector, KeepsRuns):
                await connector.leave(run_id)

    async def aclose(self) -> None:
        """Closes what the types keep open."""
        for connector in self._types.values():
            if isinstance(connector, KeepsOpen):
                await connector.aclose()

    def _find(self, call: ConnectorCall) -> Connector:
        definition = call.definition
        if definition is None:
            if call.name == HTTP:
                return self._http
            raise ConnectorFailed(
                f"{call.where} uses connector '{call.name}', which is not installed; install its "
                "template, or correct the name.",
                code="connector_not_found",
            )
        kind = filetype_of(definition)
        connector = self._types.get(kind) if kind is not None else None
        if connector is not None:
            return connector
        if kind is None:
            problem = "has no filetype, no file and no apiSpec"
        elif kind == SCRIPT:
            problem = "is a script, and this server runs none"
        else:
            problem = f"has the filetype '{kind}', which this server does not know"
        raise ConnectorFailed(
            f"Connector '{call.name}', called by {call.where}, {problem}; this server runs "
            f"{' and '.join(self._types)}.",
            code="scripts_disabled" if kind == SCRIPT else "connector_failed",
        )


def filetype_of(definition: Mapping[str, Any]) -> str | None:
    """What the author says, else what the file's name or the description says."""
    said = definition.get("filetype")
    if isinstance(said, str) and said.strip():
        return said.strip().lower()
    if definition.get("apiSpec") or is_legacy(definition):
        return REST
    filename, content = definition.get("filename"), definition.get("filecontent")
    if isinstance(content, Mapping):
        return REST
    if isinstance(filename, str) and isinstance(content, str):
        return next((kind for end, kind in _ENDINGS.items() if filename.endswith(end)), None)
    return None

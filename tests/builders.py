"""Small definitions in one line each, and a world for the engine to run them in."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.llm.base import (
    ChatDelta,
    ChatRequest,
    Embeddings,
    Provider,
    RoutedEmbedder,
    Usage,
)
from machina.connectors.llm.routes import LLM_CONNECTORS
from machina.connectors.llm.scripted import ScriptedProvider
from machina.engine import RunContext, RunResult, run_agent, run_workflow
from machina.engine.document_door import DocumentDoor
from machina.errors import ConnectorFailed
from machina.events import Event, encode_json

Definition = dict[str, Any]


def workflow(
    *tasks: Definition, name: str = "flow", outputs: Mapping[str, Any] | None = None, **more: Any
) -> Definition:
    """A workflow of these tasks; `context_variables` stands for `context-variables`."""
    fields = {"name": name, "tasks": list(tasks), "outputs": dict(outputs or {})}
    return fields | _hyphened(more)


def compute(name: str = "compute", /, *, inputs: Any = None, **more: Any) -> Definition:
    """An expression task; `outputs` and the like as keywords."""
    return {"type": "expression", "name": name, "inputs": inputs or {}, **more}


def failing(name: str = "broken", **more: Any) -> Definition:
    """A task that fails: nothing on this server runs its type."""
    return {"type": "teleport", "name": name, **more}


def ask(
    name: str = "ask", *, inputs: Any = None, outputs: Any = None, stream: bool = False, **more: Any
) -> Definition:
    """A prompt task whose answer goes to `answer`."""
    connector = {"name": "machina-ai", "command": "invoke_prompt", "stream": stream}
    return {
        "type": "prompt",
        "name": name,
        "connector": connector,
        "inputs": inputs or {},
        "outputs": {"answer": "$"} if outputs is None else outputs,
        **more,
    }


def call_workflow(target: str, name: str = "call", **more: Any) -> Definition:
    """A task that runs another workflow."""
    return {"type": "workflow", "name": name, "workflow": {"name": target}, **more}


def step(name: str = "flow", **more: Any) -> Definition:
    """A step of an agent."""
    return {"name": name, **more}


def agent(*steps: Definition, name: str = "actor", **more: Any) -> Definition:
    """An agent of these steps; `context_agent` stands for `context-agent`, and so on."""
    return {"name": name, "workflows": list(steps), **_hyphened(more)}


def _hyphened(fields: Mapping[str, Any]) -> Definition:
    return {key.replace("_", "-"): value for key, value in fields.items()}


class AnsweringProvider:
    """Gives prepared answers, each a text or a list of deltas, and keeps what it was asked."""

    name = "answering"

    def __init__(self, *answers: str | Sequence[str], usage: Usage | None = None) -> None:
        self._answers = list(answers)
        self._usage = usage
        self.requests: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Gives the next answer; the last one again and again."""
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        for text in [answer] if isinstance(answer, str) else answer:
            yield ChatDelta(text)
        yield ChatDelta(finish_reason="stop", usage=self._usage)

    async def aclose(self) -> None:
        """Nothing is open."""


class LocalEmbedder:
    """The vectors of the scripted model."""

    space = "scripted"

    async def embed(
        self, texts: Sequence[str], *, timeout_seconds: float | None = None
    ) -> Embeddings:
        return await ScriptedProvider().embed(texts)


class World:
    """The doors of the engine over dictionaries, with everything that went through them."""

    def __init__(
        self,
        *workflows: Definition,
        prompts: Sequence[Definition] = (),
        provider: Provider | None = None,
        now: Callable[[], float] = time.monotonic,
        documents: DocumentDoor | None = None,
    ) -> None:
        self.definitions = {("workflow", w["name"]): w for w in workflows}
        self.definitions |= {("prompt", p["name"]): p for p in prompts}
        self.llm: Provider = AnsweringProvider("fine") if provider is None else provider
        self.now = now
        self.connectors: list[Mapping[str, Any]] = []
        self.events: list[Event] = []
        self.checkpoints: list[tuple[int, dict[str, Any], str]] = []
        self.task_checkpoints: list[tuple[int, dict[str, Any], str]] = []
        self.replies: dict[str, ConnectorReply | ConnectorFailed] = {}
        self.called: list[ConnectorCall] = []
        self.operations: dict[str, Mapping[str, Any]] = {}
        self.operated: list[tuple[str, dict[str, Any]]] = []
        self.steps: list[dict[str, Any]] = []
        self._documents = documents

    @property
    def documents(self) -> DocumentDoor:
        """The door a test gave; a world without one has no documents."""
        assert self._documents is not None
        return self._documents

    async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.definitions.get((kind, name))

    def provider(self, connector: Mapping[str, Any]) -> Provider:
        self.connectors.append(connector)
        return self.llm

    async def call_connector(self, call: ConnectorCall) -> ConnectorReply:
        """The prepared reply of the connector, or what it fails with."""
        self.called.append(call)
        reply = self.replies.get(call.name)
        if reply is None:
            raise ConnectorFailed(f"'{call.name}' is not installed.", code="connector_not_found")
        if isinstance(reply, ConnectorFailed):
            raise reply
        return reply

    def serves_model(self, connector_name: str) -> bool:
        return connector_name in LLM_CONNECTORS

    def embedder(self, connector: Mapping[str, Any]) -> RoutedEmbedder:
        self.connectors.append(connector)
        return LocalEmbedder()

    async def operate(self, name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        self.operated.append((name, dict(inputs)))
        return self.operations[name]

    async def checkpoint(
        self, workflow_index: int, state: dict[str, Any], content: str, *, task_index: int = 0
    ) -> None:
        encode_json(state)
        self.checkpoints.append((workflow_index, state, content))
        self.task_checkpoints.append((task_index, state, content))

    async def step(self, record: dict[str, Any]) -> None:
        self.steps.append(record)

    async def emit(self, event: Event) -> None:
        self.events.append(event)

    def context(self, **more: Any) -> RunContext:
        """A context for one run in this world."""
        return RunContext(
            run_id="65f000000000000000000001", project="default", doors=self, emit=self.emit, **more
        )

    async def run(
        self, definition: Definition, payload: Mapping[str, Any] | None = None, **more: Any
    ) -> RunResult:
        """Runs an agent or a workflow, told apart by their form."""
        run = run_workflow if "workflows" not in definition else run_agent
        return await run(definition, payload or {}, self.context(**more))

    @property
    def said(self) -> list[tuple[str, str]]:
        """The events as type and content."""
        return [(event.type, event.content) for event in self.events]

    @property
    def statuses(self) -> list[tuple[str, str]]:
        """Name and status of every step that ended."""
        return [(record["name"], record["status"]) for record in self.steps]

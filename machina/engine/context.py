"""What the engine works in: what a run may ask of the outside, say, and count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.llm.base import Provider, RoutedEmbedder, Usage
from machina.engine.borders import Hide
from machina.engine.document_door import DocumentDoor
from machina.engine.loops import Width
from machina.engine.task_log import TaskLog
from machina.errors import BudgetExceeded, ModelFailed, RunError
from machina.events import Event, encode_json
from machina.observability.redaction import Redactor

Emit = Callable[[Event], Awaitable[None]]

TURN_SECONDS: Final = 0.002
"""How long one run computes before the others of its process get a turn."""
MAX_SAID_BYTES: Final = 700_000
"""Encoded text one run may say: it must fit into one final event and once more into `done`."""
_MOST_ASCII: Final = 6
_MOST_WIDE: Final = 12
"""Bytes that one character takes at most once it is encoded: one escape, or a pair of them."""
MAX_PIECE: Final = 16_000
"""Characters of one `content` event."""
MAX_CALLS: Final = 50_000
"""Tasks that one run may execute, each iteration of a loop and inner workflows counted."""


class Doors(Protocol):
    """What the engine may ask of the outside.

    A `MachinaError` that is no `RunError`, such as `StoreDown` or `Fenced`, passes through the
    engine as it is: it ends the attempt, not the run.
    """

    @property
    def documents(self) -> DocumentDoor:
        """The documents of the run's project."""

    async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
        """The definition of this kind with this name or id; None when it is not installed."""

    def provider(self, connector: Mapping[str, Any]) -> Provider:
        """The provider that answers for a prompt task's connector block, by the routing table.

        The model is the table's: the one in the request counts only where the table says so.

        Raises:
            RunError: there is none; the message says what to change.
        """

    def serves_model(self, connector_name: str) -> bool:
        """Whether a model answers for a connector of this name though it is not installed."""

    def embedder(self, connector: Mapping[str, Any]) -> RoutedEmbedder:
        """The embedder for a connector block, by the routing table; an empty block has one too.

        Count what a call cost with `RunContext.count(embeddings.usage)`.
        """

    async def call_connector(self, call: ConnectorCall) -> ConnectorReply:
        """Runs one command of a connector.

        Raises:
            ConnectorFailed: see `connectors.base.Connector`.
        """

    async def operate(self, name: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one of the built-in operations, `subworkflow.OPERATIONS`; gives its outputs.

        Raises:
            RunError: it cannot be done; the message says what to change.
        """

    async def checkpoint(
        self, workflow_index: int, state: dict[str, Any], content: str, *, task_index: int = 0
    ) -> None:
        """Keeps what a new attempt goes on from, after `workflow_index` workflows of an agent.

        In a run that is one workflow, `task_index` of its tasks are done instead.
        """

    async def step(self, record: dict[str, Any]) -> None:
        """Keeps the progress of one workflow: `name`, `status`, `execution_time` in seconds."""

    def now(self) -> float:
        """Monotonic seconds."""


class RunContext:
    """One attempt of a run, seen from inside the engine.

    `tokens` counts what models cost; start it with what earlier attempts spent. `text` is what was
    said so far; start it with what still stands of earlier attempts. `secrets` resolves the name of
    a secret; without it every secret is null. `redactor` knows every secret that was resolved.
    """

    def __init__(
        self,
        *,
        run_id: str,
        project: str,
        doors: Doors,
        emit: Emit,
        streamed: bool = False,
        stream_workflows: bool = False,
        text: str = "",
        tokens: Mapping[str, int] | None = None,
        secrets: Callable[[str], Any] | None = None,
        tasks: list[dict[str, Any]] | None = None,
        repeated: list[dict[str, str]] | None = None,
        in_doubt: bool = False,
    ) -> None:
        """`tasks` and `repeated` are the lists of the run's record that this attempt adds to.

        `in_doubt`: an earlier attempt may have begun what comes first.
        """
        self.run_id = run_id
        self.project = project
        self.doors = doors
        self.streamed = streamed
        self.stream_workflows = streamed and stream_workflows
        self.redactor = Redactor()
        self.secrets = None if secrets is None else self._learning(secrets)
        spent = tokens or {}
        self.tokens = {
            key: spent.get(key, 0) for key in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        self.width = Width()
        self.tasks = TaskLog(self.redactor, tasks)
        self.repeated = [] if repeated is None else repeated
        self.in_doubt = in_doubt
        self.connector_defaults: dict[str, Mapping[str, Any]] = {}
        """The own `context-variables` of connectors that were asked for."""
        self._emit = emit
        self._calls = 0
        self._said = [text] if text else []
        self._held = ""
        self._said_bytes = len(encode_json(text))
        self._turn_started = doors.now()

    async def emit(self, event: Event) -> None:
        """Shows an event, without secrets."""
        hidden = self.redactor
        if not hidden.is_idle:
            event = Event(event.type, hidden.text(event.content), hidden.value(event.metadata))
        await self._emit(event)

    @property
    def hide(self) -> Hide | None:
        """What keeps secrets out of a checkpoint; None while there are none to keep out."""
        return None if self.redactor.is_idle else self.redactor.parts

    def seal(self, error: RunError) -> RunError:
        """The error, with no secret in what it says."""
        if not self.redactor.is_idle:
            error.message = self.redactor.text(error.message)
            error.args = (error.message,)
        return error

    def count_call(self, where: str) -> None:
        """Notes that a task is about to be executed.

        Raises:
            BudgetExceeded: the run executed too many already.
        """
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise BudgetExceeded(
                f"The run executed {MAX_CALLS} tasks before {where}; split its work into several "
                "runs."
            )

    def note_repeat(self, workflow: str, task: str) -> None:
        """Notes that an earlier attempt may have begun a task with side effects."""
        noted = {"workflow": workflow, "task": task}
        if self.in_doubt and noted not in self.repeated:
            self.repeated.append(noted)

    def _learning(self, secrets: Callable[[str], Any]) -> Callable[[str], Any]:
        def resolve(name: str) -> Any:
            value = secrets(name)
            self.redactor.learn(name, value)
            return value

        return resolve

    @property
    def text(self) -> str:
        """What the run has said so far."""
        return "".join([*self._said, self.redactor.text(self._held)])

    async def say(self, text: str) -> None:
        """Adds to the answer, and shows it at once when the run is streamed.

        Raises:
            ModelFailed: the run has said more than an answer may hold.
        """
        self._said_bytes += len(text) * (_MOST_ASCII if text.isascii() else _MOST_WIDE)
        if self._said_bytes > MAX_SAID_BYTES:  # at most so many; counted only when that is close
            self._said_bytes = len(encode_json(self.text + text))
        if self._said_bytes > MAX_SAID_BYTES:
            raise ModelFailed(
                f"The answer is longer than {MAX_SAID_BYTES} bytes; "
                "ask for a shorter one or set max_tokens."
            )
        text = self._without_secrets(text)
        self._said.append(text)
        if self.streamed:
            for start in range(0, len(text), MAX_PIECE):
                piece = text[start : start + MAX_PIECE]
                await self.emit(Event("content", piece, {"partial": True}))

    def _without_secrets(self, piece: str) -> str:
        """What can be shown by now: an end that may be the beginning of a secret waits for more."""
        if self.redactor.is_idle:
            return piece
        whole = self.redactor.text(self._held + piece)
        end = len(whole) - self.redactor.open_end(whole)
        self._held = whole[end:]
        return whole[:end]

    def count(self, usage: Usage) -> None:
        """Adds what one call of a model cost."""
        self.tokens["prompt_tokens"] += usage.prompt_tokens
        self.tokens["completion_tokens"] += usage.completion_tokens
        self.tokens["total_tokens"] += usage.total_tokens

    async def breathe(self) -> None:
        """Gives other runs a turn once this one has computed for a while."""
        if self.doors.now() - self._turn_started >= TURN_SECONDS:
            await asyncio.sleep(0)
            self._turn_started = self.doors.now()

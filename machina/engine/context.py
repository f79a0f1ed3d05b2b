"""What the engine works in: what a run may ask of the outside, say, and count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.llm.base import Provider, Usage
from machina.engine.loops import Width
from machina.errors import ModelFailed
from machina.events import Event, encode_json

Emit = Callable[[Event], Awaitable[None]]

TURN_SECONDS: Final = 0.002
"""How long one run computes before the others of its process get a turn."""
MAX_SAID_BYTES: Final = 700_000
"""Encoded text one run may say: it must fit into one final event and once more into `done`."""
MAX_PIECE: Final = 16_000
"""Characters of one `content` event."""


class Doors(Protocol):
    """What the engine may ask of the outside.

    A `MachinaError` that is no `RunError`, such as `StoreDown` or `Fenced`, passes through the
    engine as it is: it ends the attempt, not the run.
    """

    async def definition(self, kind: str, name: str) -> dict[str, Any] | None:
        """The definition of this kind with this name or id; None when it is not installed."""

    def provider(self, connector: Mapping[str, Any]) -> Provider:
        """The provider that answers for a prompt task's connector block.

        Raises:
            RunError: there is none; the message says what to change.
        """

    async def call_connector(self, call: ConnectorCall) -> ConnectorReply:
        """Runs one command of a connector.

        Raises:
            ConnectorFailed: see `connectors.base.Connector`.
        """

    async def checkpoint(self, workflow_index: int, state: dict[str, Any], content: str) -> None:
        """Keeps what a new attempt goes on from, after `workflow_index` workflows of an agent."""

    async def step(self, record: dict[str, Any]) -> None:
        """Keeps the progress of one workflow: `name`, `status`, `execution_time` in seconds."""

    def now(self) -> float:
        """Monotonic seconds."""


class RunContext:
    """One attempt of a run, seen from inside the engine.

    `tokens` counts what models cost; start it with what earlier attempts spent. `text` is what was
    said so far; start it with what still stands of earlier attempts. `secrets` resolves the name of
    a secret; without it every secret is null.
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
    ) -> None:
        self.run_id = run_id
        self.project = project
        self.doors = doors
        self.emit = emit
        self.streamed = streamed
        self.stream_workflows = streamed and stream_workflows
        self.secrets = secrets
        spent = tokens or {}
        self.tokens = {
            key: spent.get(key, 0) for key in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        self.width = Width()
        self._said = [text] if text else []
        self._said_bytes = len(encode_json(text))
        self._turn_started = doors.now()

    @property
    def text(self) -> str:
        """What the run has said so far."""
        return "".join(self._said)

    async def say(self, text: str) -> None:
        """Adds to the answer, and shows it at once when the run is streamed.

        Raises:
            ModelFailed: the run has said more than an answer may hold.
        """
        self._said_bytes += len(encode_json(text)) - 2
        if self._said_bytes > MAX_SAID_BYTES:
            raise ModelFailed(
                f"The answer is longer than {MAX_SAID_BYTES} bytes; "
                "ask for a shorter one or set max_tokens."
            )
        self._said.append(text)
        if self.streamed:
            for start in range(0, len(text), MAX_PIECE):
                piece = text[start : start + MAX_PIECE]
                await self.emit(Event("content", piece, {"partial": True}))

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

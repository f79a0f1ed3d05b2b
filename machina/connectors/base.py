"""The port of connectors: one call of a command goes in, evaluated; data comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

MODEL_COMMANDS: Final = ("invoke_prompt", "invoke_embedding")
"""Commands that ask for a model; with a model's name they are ours (machina-format.md 6.5)."""


@dataclass(frozen=True, slots=True)
class ConnectorCall:
    """One call of one command. Nothing in it is an expression any more."""

    run_id: str
    name: str
    """The connector's name as the task has it; `http` without a definition is the built-in one."""
    command: str
    definition: Mapping[str, Any] | None
    """The connector as authored, with its implementation in `filecontent`; None: not installed."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """The task's evaluated `command_attribute`."""
    credentials: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Resolved context variables of this connector, its own defaults included."""
    block: Mapping[str, Any] = field(default_factory=dict)
    """The evaluated connector block of the task: `model`, `provider`, `url`, `headers`, …"""
    timeout_seconds: float | None = None
    """None: the limit of the setting."""
    where: str = "the call"
    """The task and its workflow, for messages."""


@dataclass(frozen=True, slots=True)
class ConnectorReply:
    """A success: what `$` is in the outputs, and the envelope's other keys."""

    data: Any
    envelope: Mapping[str, Any] = field(default_factory=lambda: {"status": True})
    """`status`, `message`, `error` and extra top-level keys, without `data`."""


class Connector(Protocol):
    """One type of connector: `restapi`, `pyscript`, the built-in `http`."""

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        """Runs the command; cancelling the call ends whatever it started.

        Raises:
            ConnectorFailed: with `connector_failed`, `connector_not_found`, `command_unknown`,
                `package_missing`, `scripts_disabled`, `egress_refused`, `connector_timeout` or
                `sandbox_limit`; the message says what to change and holds no credential.
        """

"""An agent as its author wrote it: context, what it reads of the payload, ordered steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from machina.definitions.base import Authored, read_block, read_name, read_parts, read_text
from machina.definitions.workflow import Foreach, read_conditions, read_groups


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an agent: a workflow, when it runs, what it gets and what it gives back."""

    raw: Authored
    name: str
    conditions: tuple[Any, ...]
    """`condition` and its synonym `gate`; all that exist must hold."""
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    foreach: Foreach | None

    @classmethod
    def read(cls, raw: Authored) -> Step:
        """Raises `DefinitionInvalid` when a block has the wrong shape."""
        name = read_name(raw, "step")
        owner = f"step '{name}'"
        return cls(
            raw=raw,
            name=name,
            conditions=read_conditions(raw, "condition", "gate"),
            inputs=read_block(raw, "inputs", owner),
            outputs=read_block(raw, "outputs", owner),
            foreach=Foreach.read(raw, owner),
        )

    @property
    def unsupported(self) -> str | None:
        """The type of a step that is no workflow, such as `mapping`; None for an ordinary step."""
        type = self.raw.get("type")
        return None if type in (None, "", "workflow") else str(type)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent. `steps` are read one by one, so that a broken one fails only when it is due."""

    name: str
    context: dict[str, Any]
    """Values as they are: they are not evaluated."""
    context_agent: dict[str, Any]
    parameters: list[Authored]
    """`context-variables` in list form: `{name, default, …}`, parameters with defaults."""
    context_variables: dict[str, Any]
    steps: list[Authored]
    entry_point: str | None
    has_tasks: bool
    """The agent carries tasks of its own, a form that is not supported."""

    @classmethod
    def read(cls, raw: Authored) -> Agent:
        """Raises `DefinitionInvalid` when a block has the wrong shape."""
        name = read_name(raw, "agent")
        owner = f"agent '{name}'"
        listed = isinstance(raw.get("context-variables"), list)
        return cls(
            name=name,
            context=read_block(raw, "context", owner),
            context_agent=read_block(raw, "context-agent", owner),
            parameters=read_parts(raw, "context-variables", owner) if listed else [],
            context_variables=read_groups(raw),
            steps=read_parts(raw, "workflows", owner),
            entry_point=read_text(raw, "entry-point") or read_text(raw, "entry_point"),
            has_tasks=bool(raw.get("tasks")),
        )

    @property
    def total_workflows(self) -> int:
        """How many workflows a run walks: what clients show as `n` in "step 1 of n"."""
        return len(self.steps) or int(self.entry_point is not None)

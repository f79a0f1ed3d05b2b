"""A prompt as its author wrote it: an instruction under one of six names, an answer schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from machina.definitions.base import Authored, read_block, read_name, read_text

INSTRUCTION_KEYS: Final = ("instruction", "instructions", "template", "prompt", "text", "messages")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt. Without an instruction, the texts of its schema are the instruction."""

    name: str
    instruction: Any
    """Text, a list of texts or a list of `{role, content}`; None without one."""
    schema: Mapping[str, Any] | None
    connector: dict[str, Any]
    """The default for what a task's own connector block leaves out."""

    @classmethod
    def read(cls, raw: Authored) -> Prompt:
        """Raises `DefinitionInvalid` when a block has the wrong shape."""
        name = read_name(raw, "prompt")
        owner = f"prompt '{name}'"
        return cls(
            name=name,
            instruction=next((raw[key] for key in INSTRUCTION_KEYS if raw.get(key)), None),
            schema=read_block(raw, "schema", owner) or None,
            connector=_connector(raw, owner),
        )


def _connector(raw: Authored, owner: str) -> dict[str, Any]:
    """The default block; a name alone is one too."""
    name = read_text(raw, "connector")
    return {"name": name} if name else read_block(raw, "connector", owner)

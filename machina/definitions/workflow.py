"""A workflow as its author wrote it: inputs, ordered tasks, outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from machina.definitions.base import Authored, read_block, read_name, read_parts, read_text

_SCHEMA_TYPES: Final = frozenset(
    ("string", "integer", "number", "boolean", "array", "object", "null", "any")
) | frozenset(("str", "text", "int", "float", "bool", "list", "dict", "date", "datetime"))
_SCHEMA_WORDS: Final = frozenset(
    {
        *("type", "title", "description", "required", "default", "enum", "format", "pattern"),
        *("items", "properties", "example", "examples", "nullable", "minimum", "maximum"),
        *("minItems", "maxItems", "minLength", "maxLength"),
    }
)
_MARKS: Final = ("required", "default")
"""What makes a declaration of a description, where the type is left out."""


def is_declaration(value: object) -> bool:
    """Whether an input is declared like a JSON schema (`{type, description, …}`), not computed."""
    if not isinstance(value, Mapping) or not _SCHEMA_WORDS.issuperset(value):
        return False
    if "type" not in value:
        return isinstance(value.get("description"), str) and not value.keys().isdisjoint(_MARKS)
    types = value["type"]
    named = types if isinstance(types, list) else [types]
    return bool(named) and all(isinstance(t, str) and t in _SCHEMA_TYPES for t in named)


@dataclass(frozen=True, slots=True)
class Foreach:
    """A loop over a task or a step: each item of `value` is visible under `name`."""

    name: str
    value: Any
    concurrent: bool

    @classmethod
    def read(cls, raw: Authored, owner: str) -> Foreach | None:
        """The loop of a task or step; None without one. `expr` is always `$` and ignored."""
        block = read_block(raw, "foreach", owner)
        if not block:
            return None
        return cls(
            read_text(block, "name") or "item", block.get("value"), _is_on(block, "concurrent")
        )


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a workflow. Fields of one type only are read from `raw` by that type."""

    raw: Authored
    name: str
    type: str
    conditions: tuple[Any, ...]
    """`condition` and its synonym `when`; all that exist must hold."""
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    connector: dict[str, Any]
    foreach: Foreach | None
    continue_on_error: bool

    @classmethod
    def read(cls, raw: Authored) -> Task:
        """Raises `DefinitionInvalid` when a block has the wrong shape."""
        name = read_name(raw, "task")
        owner = f"task '{name}'"
        return cls(
            raw=raw,
            name=name,
            type=str(raw.get("type") or ""),
            conditions=read_conditions(raw, "condition", "when"),
            inputs=read_block(raw, "inputs", owner),
            outputs=read_block(raw, "outputs", owner),
            connector=read_block(raw, "connector", owner),
            foreach=Foreach.read(raw, owner),
            continue_on_error=_is_on(raw, "continue_on_error"),
        )


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow. `tasks` are read one by one, so that a broken one fails only when it is due."""

    name: str
    title: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    tasks: list[Authored]
    context_variables: dict[str, Any]

    @classmethod
    def read(cls, raw: Authored) -> Workflow:
        """Raises `DefinitionInvalid` when a block has the wrong shape."""
        name = read_name(raw, "workflow")
        owner = f"workflow '{name}'"
        return cls(
            name=name,
            title=read_text(raw, "title") or name,
            inputs=read_block(raw, "inputs", owner),
            outputs=read_block(raw, "outputs", owner),
            tasks=read_parts(raw, "tasks", owner),
            context_variables=read_groups(raw),
        )


def read_conditions(raw: Authored, *synonyms: str) -> tuple[Any, ...]:
    """The conditions that a task or step carries under these names; null is none."""
    return tuple(raw[key] for key in synonyms if raw.get(key) is not None)


def read_groups(raw: Authored) -> dict[str, Any]:
    """The `context-variables` by connector name; an agent's list form has no groups."""
    groups = raw.get("context-variables")
    return cast("dict[str, Any]", dict(groups)) if isinstance(groups, Mapping) else {}


def _is_on(raw: Authored, key: str) -> bool:
    return raw.get(key) is True

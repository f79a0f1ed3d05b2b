"""What all kinds share: the kinds, the rule for names, and tolerant reading of fields."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from machina.errors import DefinitionInvalid, Invalid

MAX_NAME: Final = 200

Authored = Mapping[str, Any]
"""A definition or a part of one, as its author wrote it. Never changed, never normalised."""


class Kind(StrEnum):
    """What an author can define: the root key of a file, and the kind in the store."""

    AGENT = "agent"
    WORKFLOW = "workflow"
    CONNECTOR = "connector"
    PROMPT = "prompt"
    MAPPING = "mapping"
    SKILL = "skill"


def check_name(name: object) -> str:
    """The name, when it is one: 1 to 200 printable characters without `/`; `sport:Event` is one.

    Raises:
        Invalid: for anything else; `field` is `name`.
    """
    if not isinstance(name, str):
        raise Invalid("A definition needs a name: give it as text.", field="name")
    if not name.strip() or len(name) > MAX_NAME or "/" in name or not name.isprintable():
        raise Invalid(
            f"A name has 1 to {MAX_NAME} printable characters and no '/'; choose another one.",
            field="name",
        )
    return name


def read_name(raw: Authored, kind: str) -> str:
    """The name for messages and events; a nameless part is called by its kind."""
    name = raw.get("name")
    return name if isinstance(name, str) and name else f"unnamed {kind}"


def read_text(raw: Authored, key: str) -> str | None:
    """A text field; None when it is absent, empty or no text."""
    value = raw.get(key)
    return value if isinstance(value, str) and value else None


def read_block(raw: Authored, key: str, owner: str) -> dict[str, Any]:
    """A dictionary field with its keys as text; an absent or null one is empty.

    Raises:
        DefinitionInvalid: the field is something else; the message names `owner` and the field.
    """
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong(owner, key, "a dictionary", value)
    return {str(k): v for k, v in value.items()}


def read_parts(raw: Authored, key: str, owner: str) -> list[Authored]:
    """A list of dictionaries; an absent or null one is empty.

    Raises:
        DefinitionInvalid: the field or an item of it is something else.
    """
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise _wrong(owner, key, "a list", value)
    for number, item in enumerate(value, start=1):
        if not isinstance(item, Mapping):
            raise _wrong(owner, f"{key}, item {number}", "a dictionary", item)
    return list(value)


def _wrong(owner: str, key: str, wanted: str, found: object) -> DefinitionInvalid:
    return DefinitionInvalid(
        f"'{key}' of {owner} must be {wanted}, not {type(found).__name__}; correct the definition."
    )

"""Builds what a model is asked: instruction, inputs and history become messages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from machina.connectors.llm.base import Message
from machina.definitions import Prompt
from machina.engine.borders import compact_json

HISTORY: Final = "messages"
PARAMETERS: Final = ("timeout", "temperature", "max_tokens")
"""Inputs that set how the model answers instead of being told to it."""

_NUMBERED: Final = re.compile(r"_(\d{1,9})-")
_PLACEHOLDER: Final = re.compile(r"\{\{([^{}]+)\}\}|\{([^{}]+)\}")
_MAX_SCHEMA_DEPTH: Final = 8


def build_messages(prompt: Prompt | None, inputs: Mapping[str, Any]) -> list[Message]:
    """Instruction, then the inputs under their keys, then the history as the caller wrote it.

    Null inputs are left out. Without instruction and other inputs the history stands alone.
    """
    told = {k: v for k, v in inputs.items() if v is not None and k not in PARAMETERS}
    history = _history(told.get(HISTORY))
    if history is not None:
        del told[HISTORY]
    rest: list[Message] = []
    if told:
        rest.append({"role": "user", "content": _describe(told)})
    rest.extend(history or ())
    instruction = [] if prompt is None else _instruct(prompt, inputs)
    if instruction and not rest and all(m["role"] == "system" for m in instruction):
        # Some providers refuse a conversation in which nobody but the system spoke.
        instruction = [{**message, "role": "user"} for message in instruction]
    return [*instruction, *rest]


def fill(text: str, inputs: Mapping[str, Any]) -> str:
    """Puts inputs in place of `{{name}}` and `{name}`; every other brace stays as it is."""

    def replace(match: re.Match[str]) -> str:
        name = match[1].strip() if match[1] is not None else match[2]
        return _show(inputs[name]) if name in inputs else match[0]

    return _PLACEHOLDER.sub(replace, text)


def _history(value: Any) -> Sequence[Message] | None:
    """The messages of a chat; None when the value has another shape and is an ordinary input."""
    if isinstance(value, str):
        return [{"role": "user", "content": str(value)}] if value else []
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list | tuple) and all(_is_message(item) for item in value):
        return [_unwrapped(item) for item in value]
    return None


def _unwrapped(message: Message) -> Message:
    """The message as it is; some threads keep its text one level deeper, as `{content}`."""
    content = message.get("content")
    if isinstance(content, Mapping) and isinstance(content.get("content"), str):
        return {**message, "content": content["content"]}
    return message


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str)


def _instruct(prompt: Prompt, inputs: Mapping[str, Any]) -> list[Message]:
    parts = prompt.instruction
    if isinstance(parts, Mapping):
        parts = [parts]
    if isinstance(parts, list | tuple) and parts and all(_is_message(part) for part in parts):
        return [{**part, "content": _fill_content(part.get("content"), inputs)} for part in parts]
    if isinstance(parts, list | tuple):
        parts = "\n".join(_show(part) for part in parts)
    text = _show(parts)
    if not text.strip() and prompt.schema is not None:
        text = "\n".join(_schema_texts(prompt.schema))
    return [{"role": "system", "content": fill(text, inputs)}] if text.strip() else []


def _fill_content(content: Any, inputs: Mapping[str, Any]) -> Any:
    return fill(content, inputs) if isinstance(content, str) else content


def _describe(told: Mapping[str, Any]) -> str:
    """The inputs under their full keys: numbered ones by number, then the others as written."""
    return "\n\n".join(f"{key}:\n{_show(told[key])}" for key in sorted(told, key=_rank))


def _rank(key: str) -> tuple[int, int]:
    number = _NUMBERED.match(key)
    return (0, int(number[1])) if number else (1, 0)


def _show(value: Any) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else compact_json(value)


def _schema_texts(schema: Mapping[str, Any]) -> Iterator[str]:
    """A schema's own words, which are the instruction of a prompt that has no other."""
    for key in ("title", "description"):
        if isinstance(schema.get(key), str):
            yield schema[key]
    yield "Answer with one JSON object:"
    yield from _property_texts(schema, "", 0)


def _property_texts(schema: Any, path: str, depth: int) -> Iterator[str]:
    while isinstance(schema, Mapping) and isinstance(schema.get("items"), Mapping):
        schema, path = schema["items"], f"{path}[]"
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping) or depth > _MAX_SCHEMA_DEPTH:
        return
    for name, inner in properties.items():
        inner_path = f"{path}.{name}" if path else str(name)
        text = inner.get("description") if isinstance(inner, Mapping) else None
        yield f"- {inner_path}: {text}" if isinstance(text, str) else f"- {inner_path}"
        yield from _property_texts(inner, inner_path, depth + 1)

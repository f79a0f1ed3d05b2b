"""The bodies of the executors of connectors and prompts, read into the inputs of a single task.

What a caller sends is data: none of it becomes an expression or a token of a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from machina.api.bodies import StartBody, fingerprint
from machina.errors import Invalid

_HINTS: Final = frozenset(("agent-config", "skip_delay", "stream", "context-variables"))
_ATTRIBUTES: Final = ("path_attribute", "command_attribute")
_ENCODED: Final = ("inputs", *_ATTRIBUTES)
"""Objects that a form sends as the text of their JSON."""


def read_connector_body(
    definition: Mapping[str, Any],
    body: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]] = (),
) -> StartBody:
    """`{command, inputs, path_attribute}`; without `inputs` the body's other keys are the inputs.

    Args:
        definition: The connector.
        body: What the caller sent, or what its form stands for.
        files: `{field, path, blob, digest}` of files that came with it; the inputs name the paths.

    Raises:
        Invalid: no command, or a part of the wrong type.
    """
    payload: dict[str, Any] = {
        "type": "connector",
        "connector": definition["name"],
        "command": _command_of(definition, body),
        "inputs": _inputs(body, ("command", *_ATTRIBUTES)),
        "path_attribute": {},
    }
    for key in _ATTRIBUTES:
        payload["path_attribute"] |= _object(body, key)
    if not files:
        return _start(payload)
    named: dict[str, list[str]] = {file["field"]: [] for file in files}
    for file in files:
        named[file["field"]].append(file["path"])
    _name_files(definition, payload["inputs"], named)
    meaning = payload | {"files": [file["digest"] for file in files]}
    payload["uploads"] = [{"path": file["path"], "blob": file["blob"]} for file in files]
    return replace(_start(payload), fingerprint=fingerprint(meaning))


def read_prompt_body(definition: Mapping[str, Any], body: Mapping[str, Any]) -> StartBody:
    """`{inputs, connector}`; without `inputs` the body's other keys are the inputs.

    Raises:
        Invalid: a part of the wrong type.
    """
    connector = body.get("connector")
    payload = {
        "type": "prompt",
        "prompt": definition["name"],
        "inputs": _inputs(body, ("connector", "prompt", "name", "id", "_id", "prompt_id")),
        "connector": {"name": connector}
        if isinstance(connector, str) and connector
        else _object(body, "connector"),
    }
    return _start(payload)


def read_target(body: Mapping[str, Any]) -> str:
    """The prompt that a body names, by id or name.

    Raises:
        Invalid: it names none.
    """
    for key in ("prompt_id", "prompt", "id", "_id", "name"):
        if isinstance(body.get(key), str) and body[key]:
            return str(body[key])
    raise Invalid("Name the prompt to execute under 'name' or 'id'.", field="name")


def decode_form(fields: Mapping[str, str]) -> dict[str, Any]:
    """The text fields of a form as the body they stand for.

    Raises:
        Invalid: an object in it is not JSON.
    """
    body: dict[str, Any] = dict(fields)
    for key in _ENCODED:
        if key in fields:
            try:
                body[key] = orjson.loads(fields[key])
            except orjson.JSONDecodeError:
                raise Invalid(f"'{key}' of the form must be a JSON object.", field=key) from None
    return body


def _name_files(
    definition: Mapping[str, Any], inputs: dict[str, Any], named: Mapping[str, list[str]]
) -> None:
    """A script gets the path of a file, several of one field as a list; a REST call sends it on."""
    if definition.get("filetype") == "restapi":
        body = inputs.get("body")
        paths = {field: f"@{found[0]}" for field, found in named.items()}
        inputs["body"] = paths | (body if isinstance(body, dict) else {})
        return
    for field, found in named.items():
        inputs[field] = found[0] if len(found) == 1 else found


def _start(payload: dict[str, Any]) -> StartBody:
    return StartBody(
        payload=payload,
        thread_id=None,
        stream_workflows=False,
        cancel_on_disconnect=False,
        delay=False,
        fingerprint=fingerprint(payload),
    )


def _command_of(definition: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """The value of the command; the name under which people see it is understood as well."""
    command = body.get("command")
    if not isinstance(command, str) or not command.strip():
        raise Invalid("Name the connector's command under 'command', as text.", field="command")
    commands = definition.get("commands")
    known = [item for item in commands if isinstance(item, dict)] if commands else []
    if not any(item.get("value") == command for item in known):
        for item in known:
            if item.get("name") == command and isinstance(item.get("value"), str):
                return str(item["value"])
    return command


def _inputs(body: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    if body.get("inputs") is not None:
        return _object(body, "inputs")
    reserved = {*known, "inputs", *_HINTS}
    return {key: value for key, value in body.items() if key not in reserved}


def _object(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"'{key}' must be an object.", field=key)
    return dict(value)

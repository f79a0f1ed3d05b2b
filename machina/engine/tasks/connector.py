"""The `connector` task: one command of a REST API or a script, with everything computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from machina.connectors.base import MODEL_COMMANDS, ConnectorCall, ConnectorReply
from machina.connectors.llm.base import Usage
from machina.definitions import Kind
from machina.engine.blocks import evaluate_value
from machina.engine.credentials import SECRET_TOKEN, Fields
from machina.engine.tasks.base import TaskCall, TaskResult
from machina.errors import ConnectorFailed, DefinitionInvalid, SecretMissing
from machina.expressions import ConnectorResult

NAMES: Final = ("name", "command")
"""Fields of the connector block that are names, never expressions."""
ATTRIBUTES: Final = ("command_attributes", "command_attribute")
"""Two spellings of one field; of a key in both, the second one counts."""
INPUTS: Final = "inputs"
_ABOUT_THE_CALL: Final = "connector_failed"
"""The failure that a credential might have prevented; other codes name another cause."""


async def run_connector(call: TaskCall) -> TaskResult:
    """`$` in the outputs is the connector's `data`, unwrapped, with its envelope behind it.

    Raises:
        ConnectorFailed: the connector is not there, refused, or broke off.
        SecretMissing: it failed, and a secret it was to get has no value.
        ExpressionFailed: a command attribute or a field of the connector block.
    """
    written = call.task.connector
    for field in NAMES:
        _read_name(call, written, field)
    nested = {field: _read_block(call, written, field) for field in (*ATTRIBUTES, INPUTS)}
    block = {field: written[field] for field in NAMES}
    block |= await _evaluate(call, _fields_of(written), "connector")
    for field, values in nested.items():
        block[field] = await _evaluate(call, values, f"connector.{field}")
    return await call_connector(call, block)


async def call_connector(call: TaskCall, block: Mapping[str, Any]) -> TaskResult:
    """As `run_connector`, with the block of the connector as it is: nothing of it is evaluated.

    Raises:
        DefinitionInvalid: a field of the block has the wrong shape.
        ConnectorFailed, SecretMissing: as `run_connector` does.
    """
    reply = await ask_connector(call, block)
    return TaskResult(ConnectorResult({**reply.envelope, "data": reply.data}))


async def ask_connector(call: TaskCall, block: Mapping[str, Any]) -> ConnectorReply:
    """What the connector says, envelope and all; see `call_connector`."""
    name, command = (_read_name(call, block, field) for field in NAMES)
    attributes: dict[str, Any] = {}
    for field in ATTRIBUTES:
        attributes |= _read_block(call, block, field)
    made = ConnectorCall(
        run_id=call.ctx.run_id,
        name=name,
        command=command,
        definition=await call.ctx.doors.definition(Kind.CONNECTOR, name),
        inputs={**_read_block(call, block, INPUTS), **call.inputs},
        attributes=attributes,
        credentials=call.credentials,
        block=_fields_of(block),
        where=call.where,
    )
    try:
        reply = await call.ctx.doors.call_connector(made)
    except ConnectorFailed as failed:
        missing = _missing_secrets(call, made)
        if failed.code != _ABOUT_THE_CALL or not missing:
            raise
        raise SecretMissing(
            f"{failed.message.rstrip('.')}. {_worded(missing)}", details=failed.details
        ) from failed
    _count(call, made, reply)
    return reply


def _count(call: TaskCall, made: ConnectorCall, reply: ConnectorReply) -> None:
    """Adds what a model cost that answered for its connector."""
    usage = reply.envelope.get("usage")
    is_model = made.command in MODEL_COMMANDS and call.ctx.doors.serves_model(made.name)
    if is_model and isinstance(usage, Mapping):
        prompt, completion = (usage.get(f"{kind}_tokens", 0) for kind in ("prompt", "completion"))
        call.ctx.count(Usage(prompt_tokens=prompt, completion_tokens=completion))


def _fields_of(block: Mapping[str, Any]) -> dict[str, Any]:
    taken = (*NAMES, *ATTRIBUTES, INPUTS)
    return {key: value for key, value in block.items() if key not in taken}


async def _evaluate(call: TaskCall, values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Each value; what is no expression stays as it is written. An error fails the task."""
    return {
        str(key): await evaluate_value(call.ctx, value, call.scope, f"{call.where}, {place}.{key}")
        for key, value in values.items()
    }


def _read_name(call: TaskCall, block: Mapping[str, Any], field: str) -> str:
    value = block.get(field)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise DefinitionInvalid(f"connector.{field} of {call.where} must be a text.")


def _read_block(call: TaskCall, block: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = block.get(field)
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return value
    raise DefinitionInvalid(f"connector.{field} of {call.where} must be a dictionary.")


def _missing_secrets(call: TaskCall, made: ConnectorCall) -> list[str]:
    """The secrets without a value that this call would have used, in the order of their use."""
    fields = call.credentials
    unset = fields.unset if isinstance(fields, Fields) else {}
    missing = [secret for name, secret in unset.items() if fields.get(name) is None]
    connector = call.task.connector
    blocks: list[tuple[Any, Any]] = [
        (connector, made.block),
        (call.task.inputs, made.inputs),
        (connector.get(INPUTS), made.inputs),
        *((connector.get(field), made.attributes) for field in ATTRIBUTES),
    ]
    for block in blocks:
        for written, value in _leaves(*block):
            token = SECRET_TOKEN.match(written.strip())
            if token is not None and value is None:
                missing.append(token[1])
    return list(dict.fromkeys(missing))


def _leaves(written: Any, value: Any) -> Iterator[tuple[str, Any]]:
    """The texts of a block, each with what it was evaluated to."""
    if isinstance(written, str):
        yield written, value
    elif isinstance(written, Mapping):
        for key, part in written.items():
            if isinstance(value, Mapping) and key in value:
                yield from _leaves(part, value[key])


def _worded(missing: list[str]) -> str:
    names = ", ".join(missing)
    one = len(missing) == 1
    return (
        f"{'The secret' if one else 'The secrets'} {names} {'has' if one else 'have'} no value: "
        f"set {'it' if one else 'them'} in the vault, or in the environment of the workers."
    )

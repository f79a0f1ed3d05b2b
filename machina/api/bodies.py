"""The bodies that existing clients send to start a run, read into what the run gets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from machina.errors import Invalid

_HINTS: Final = frozenset(
    ("agent-config", "stream_workflows", "skip_delay", "stream", "on_disconnect")
)
"""Keys about the manner of execution; they never reach the run."""
_TRANSPORT: Final = ("stream", "skip_delay")
"""Keys that may differ between two requests that mean the same run."""
_MAX_THREAD_ID: Final = 200


@dataclass(frozen=True, slots=True)
class StartBody:
    """What a body asks for."""

    payload: dict[str, Any]
    thread_id: str | None
    stream_workflows: bool
    cancel_on_disconnect: bool
    delay: bool
    """Answer at once and run in the background."""
    fingerprint: str
    """Equal for bodies that mean the same run."""


def read_agent_body(body: Mapping[str, Any]) -> StartBody:
    """`context-agent` flattened, over the other top-level keys; messages from either place.

    Raises:
        Invalid: a key that this server reads has the wrong type; the error names it.
    """
    context = _mapping(body, "context-agent")
    payload = {k: v for k, v in body.items() if k not in _HINTS and k != "context-agent"} | context
    offered = [_messages(place.get("messages")) for place in (context, body)]
    given = [messages for messages in offered if messages is not None]
    if given:
        # An empty list in one place does not hide the messages in the other.
        payload["messages"] = next(filter(None, given), given[0])
    else:
        payload.pop("messages", None)
    return _start(body, payload)


def read_workflow_body(body: Mapping[str, Any]) -> StartBody:
    """The object under `context-workflow`, or else the body itself, as the workflow's inputs.

    Raises:
        Invalid: a key that this server reads has the wrong type; the error names it.
    """
    wrapped = body.get("context-workflow")
    if isinstance(wrapped, dict):
        return _start(body, dict(wrapped))
    return _start(body, {k: v for k, v in body.items() if k not in _HINTS})


def _start(body: Mapping[str, Any], payload: dict[str, Any]) -> StartBody:
    thread_id = _thread_id(payload)
    if thread_id is None:
        payload.pop("thread_id", None)
    return StartBody(
        payload=payload,
        thread_id=thread_id,
        stream_workflows=_flag(body, "stream_workflows"),
        cancel_on_disconnect=_cancels(body.get("on_disconnect")),
        delay=_flag(_mapping(body, "agent-config"), "delay", "agent-config.delay"),
        fingerprint=fingerprint(body),
    )


def fingerprint(body: Mapping[str, Any]) -> str:
    """A hash of the canonical JSON of a body, without the keys that are about transport only."""
    meaning = {k: v for k, v in body.items() if k not in _TRANSPORT}
    return hashlib.sha256(orjson.dumps(meaning, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _mapping(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"'{key}' must be an object; leave it out if it is empty.", field=key)
    return value


def _messages(value: Any) -> list[Any] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise Invalid(
            '\'messages\' must be a list of objects, as [{"role": "user", "content": "Hello"}].',
            field="messages",
        )
    return value


def _thread_id(payload: Mapping[str, Any]) -> str | None:
    value = payload.get("thread_id")
    if value is None or value == "":  # what clients send for a new conversation
        return None
    if not isinstance(value, str) or len(value) > _MAX_THREAD_ID or not value.isprintable():
        raise Invalid(
            f"'thread_id' must be text of at most {_MAX_THREAD_ID} printable characters; "
            "leave it out for a new thread.",
            field="thread_id",
        )
    return value


def _flag(body: Mapping[str, Any], key: str, name: str | None = None) -> bool:
    value = body.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Invalid(f"'{name or key}' must be true or false.", field=name or key)
    return value


def _cancels(value: Any) -> bool:
    if value not in (None, "continue", "cancel"):
        raise Invalid(
            "'on_disconnect' must be 'continue' or 'cancel'; the run goes on by default.",
            field="on_disconnect",
        )
    return bool(value == "cancel")

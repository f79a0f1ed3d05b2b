"""The event vocabulary as JSON Schema, for the documentation: one schema per type, and `Event`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.events import EVENT_TYPES, EventType

_TEXT: Final = {"type": "string"}
_NULLABLE_TEXT: Final = {"type": ["string", "null"]}
_NUMBER: Final = {"type": "number"}
_WHOLE: Final = {"type": "integer"}
_FLAG: Final = {"type": "boolean"}
_LIST: Final[dict[str, Any]] = {"type": "array", "items": {}}
_OBJECT: Final = {"type": "object", "additionalProperties": True}
_STEP: Final = {
    "workflow_name": _TEXT,
    "workflow_index": _WHOLE,
    "total_workflows": _WHOLE,
    "progress_percent": _NUMBER,
}
_NAMES: Final = {
    "agent_id": _TEXT,
    "agent_name": _TEXT,
    "workflow_id": _TEXT,
    "workflow_name": _TEXT,
    "task_id": _TEXT,
    "run_id": _TEXT,
    "thread_id": _NULLABLE_TEXT,
    "attempt": _WHOLE,
}

_TYPES: Final[Mapping[EventType, tuple[str, Mapping[str, Any]]]] = {
    "start": ("The run begins; the first event of the first attempt.", _NAMES),
    "restart": (
        "Another attempt goes on. Of the text shown so far, `content` still stands; a client takes "
        "back the rest. `workflow_index` workflows are finished.",
        _NAMES | {"content": _TEXT, "workflow_index": _WHOLE},
    ),
    "workflow_start": ("A workflow of the agent begins (with `stream_workflows`).", _STEP),
    "workflow_complete": ("A workflow ended.", _STEP | {"success": _FLAG}),
    "workflow_skipped": ("The condition of a workflow did not hold.", _STEP),
    "workflow_error": ("A workflow failed.", _STEP | {"code": _TEXT}),
    "workflow_objects": (
        "Objects to show beside the answer; they replace earlier ones.",
        {"objects": _LIST, "workflow_name": _TEXT},
    ),
    "status_update": (
        "What the run is doing, for people.",
        {"status_message": _TEXT, "workflow_name": _TEXT},
    ),
    "content": (
        "Text of the answer: a piece to append (`partial`) or all of it (`final`).",
        {"partial": _FLAG, "final": _FLAG},
    ),
    "error": (
        "Why the run failed; `done` follows.",
        {
            "code": _TEXT,
            "type": _TEXT,
            "title": _TEXT,
            "message": _NULLABLE_TEXT,
            "retryable": _FLAG,
            "run_id": _TEXT,
        },
    ),
    "done": (
        "The end; always the last event, and the only one that ends a stream.",
        _NAMES
        | {
            "status": {"enum": ["executed", "failed", "cancelled", "timeout"]},
            "content": _TEXT,
            "objects": _LIST,
            "suggestions": _LIST,
            "document_id": _TEXT,
            "state": _OBJECT,
        },
    ),
}


def event_schemas() -> dict[str, Any]:
    """The schemas to put under `components`: `Event`, and one for each type."""
    names = {type: _schema_name(type) for type in EVENT_TYPES}
    schemas: dict[str, Any] = {
        "Event": {
            "title": "Event",
            "description": "One thing a run says. Ids rise within a run and never repeat.",
            "oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in names.values()],
            "discriminator": {
                "propertyName": "type",
                "mapping": {type: f"#/components/schemas/{name}" for type, name in names.items()},
            },
        }
    }
    for type, (description, metadata) in _TYPES.items():
        schemas[names[type]] = _schema(type, description, metadata)
    return schemas


def _schema_name(type: str) -> str:
    return "".join(word.capitalize() for word in type.split("_")) + "Event"


def _schema(type: str, description: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": _schema_name(type),
        "description": description,
        "type": "object",
        "required": ["id", "type", "content", "metadata"],
        "properties": {
            "id": {
                "type": "string",
                "pattern": "^[0-9]{1,9}-[0-9]{1,9}$",
                "description": "`<attempt>-<seq>`; resume after it with `Last-Event-ID`.",
            },
            "type": {"const": type},
            "content": {"type": "string"},
            "metadata": {
                "type": "object",
                "properties": dict(metadata),
                "additionalProperties": True,
            },
        },
    }

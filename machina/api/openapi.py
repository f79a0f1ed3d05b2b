"""The API's own description: the framework's, with events, errors and keys as they really are."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from machina.api.event_schema import event_schemas
from machina.errors import Unauthenticated

TITLE: Final = "Machina"
DESCRIPTION: Final = """\
Runs AI agents and streams what they do, durably, to any HTTP client.

* A stream is one event per line (`application/x-ndjson`) or per frame (`text/event-stream`). Every
  event has an `id`; a client that lost its connection goes on after the last id it has.
* Every error has the same shape (`Problem`): `status` is the text `"error"`, `error.id` is stable.
* Send a key as `Authorization: Bearer <key>` or `X-Api-Token: <key>`.
"""
TAGS: Final = [
    {"name": "Agents", "description": "Start agents and stream what they do."},
    {"name": "Workflows", "description": "The same for a single workflow."},
    {"name": "Prompts", "description": "What models are asked, and how they answer."},
    {"name": "Connectors", "description": "What reaches other services."},
    {"name": "Mappings", "description": "How data is taken from one shape to another."},
    {"name": "Skills", "description": "What a template can do, and where it begins."},
    {"name": "Documents", "description": "The data that runs read and write."},
    {"name": "Secrets", "description": "The vault: values go in and never come out."},
    {"name": "Executions", "description": "Runs: search, read, resume, cancel."},
    {"name": "Schedules", "description": "What runs by itself, when, and how it went."},
    {"name": "Templates", "description": "Install bundles of definitions."},
    {"name": "Account", "description": "What the CLI asks about the key it has."},
    {"name": "System", "description": "Health, readiness, circuit breaker."},
]

_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "integer"}
_FREE: Final = {"type": "object", "additionalProperties": True}

_PROBLEM: Final = {
    "title": "Problem",
    "description": "An error (RFC 9457, `application/problem+json`). `status` is text, because "
    "clients decide by it; the number is in the status line, `error.code` and `meta.code`.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "data", "error", "meta"],
    "properties": {
        "type": {"type": "string", "description": "`/errors/<code>`"},
        "title": _TEXT,
        "status": {"const": "error"},
        "detail": _TEXT,
        "instance": {"type": "string", "description": "The path that was asked."},
        "data": {"type": "object", "description": "Always empty."},
        "error": {
            "type": "object",
            "required": ["code", "id", "title", "message", "retryable"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "id": {"type": "string", "description": "The stable name of the error."},
                "title": _TEXT,
                "message": {"type": "string", "description": "What happened and what to do."},
                "retryable": {"type": "boolean"},
                "field": {"type": "string", "description": "What of the request is wrong."},
                "error_id": {"type": "string", "description": "To find it in the server's log."},
            },
        },
        "meta": {
            "type": "object",
            "properties": {"code": _WHOLE, "request_id": {"type": ["string", "null"]}},
        },
        "details": _FREE,
    },
}
_ANSWER: Final = {
    "title": "Answer",
    "type": "object",
    "required": ["data", "status"],
    "properties": {"data": _FREE, "message": _TEXT, "status": {"const": True}},
}
_SAVED: Final = {
    "title": "Saved",
    "description": "The answer to a creation or a change, as the clients of this kind read it.",
    "type": "object",
    "required": ["status"],
    "properties": {
        "data": _FREE,
        "message": _TEXT,
        "meta": _FREE,
        "status": {"enum": [True, "success"]},
    },
}
_PAGE: Final = {
    "title": "Page",
    "type": "object",
    "required": ["data", "status", "total_documents", "total", "pagination"],
    "properties": {
        "data": {"type": "array", "items": _FREE},
        "status": {"const": True},
        "total_documents": _WHOLE,
        "total": _WHOLE,
        "pagination": {
            "type": "object",
            "properties": dict.fromkeys(("page", "page_size", "total", "total_documents"), _WHOLE),
        },
    },
}
_SCHEMES: Final = {
    "Bearer": {"type": "http", "scheme": "bearer", "description": Unauthenticated.title},
    "ApiToken": {"type": "apiKey", "in": "header", "name": "X-Api-Token"},
}


def machina_openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an app; the same for the same code and version, byte for byte."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    components = document.setdefault("components", {})
    components["schemas"] = dict(
        sorted(
            (
                components.get("schemas", {})
                | event_schemas()
                | {"Problem": _PROBLEM, "Answer": _ANSWER, "Page": _PAGE, "Saved": _SAVED}
            ).items()
        )
    )
    components["securitySchemes"] = _SCHEMES
    document["security"] = [{name: []} for name in _SCHEMES]
    return document

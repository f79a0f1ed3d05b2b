"""What the documentation shows of the routes of definitions, per kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from machina import errors
from machina.api.definition_rows import saved_answer, updated_answer
from machina.api.examples import answer, body, page_example, refusals
from machina.api.problems import UnsupportedMediaType
from machina.store.base import Duplicate
from machina.store.definitions import Kind

ID: Final = "692431c2a1b2c3d4e5000000"
_DATE: Final = "Mon, 24 Nov 2026 12:00:00 GMT"
_AUTHORED: Final[dict[str, dict[str, Any]]] = {
    "agent": {
        "title": "Hello",
        "description": "Greets.",
        "status": "inactive",
        "context-agent": {"messages": "$.get('messages', [])"},
        "workflows": [{"name": "greet", "description": "Greets.", "condition": "True"}],
    },
    "workflow": {
        "title": "Greet",
        "description": "Greets a city.",
        "inputs": {"city": "$.get('city', 'Lisbon')"},
        "outputs": {"greeting": "f\"Hello {$.get('city')}\""},
        "tasks": [],
    },
    "prompt": {"title": "Reply", "type": "prompt", "instruction": "Reply in one sentence."},
    "connector": {
        "description": "The weather.",
        "filename": "weather.json",
        "filetype": "restapi",
        "filecontent": '{"openapi": "3.1.0", "paths": {}}',
        "commands": [{"name": "Forecast", "value": "get-forecast"}],
    },
    "skill": {
        "title": "Forecasts",
        "version": "1.0.0",
        "workflows": [{"name": "greet", "description": "Greets a city."}],
    },
    "mapping": {"title": "Cities", "type": "mapping", "outputs": {"city": "$.get('name')"}},
}

_KEY: Final = (errors.Unauthenticated, errors.StoreDown)
_BODY: Final = (errors.TooLarge, UnsupportedMediaType, errors.Invalid)


@dataclass(frozen=True, slots=True)
class KindExamples:
    """The documentation of one kind's routes, as arguments of the routes."""

    search: dict[str, Any]
    read: dict[str, Any]
    create: dict[str, Any]
    update: dict[str, Any]
    delete: dict[str, Any]
    created: int
    """The status of a creation."""


def of_kind(kind: Kind) -> KindExamples:
    """The examples of a kind."""
    authored = {"name": "hello", **_AUTHORED[kind]}
    row = {"_id": ID, "id": ID, **authored, "created": _DATE, "updated": _DATE, "date": _DATE}
    created = 201 if kind == "workflow" else 200
    deleted = {"_id": ID, "id": ID, "name": "hello"}
    query = {"filters": {"name": "hello"}, "sorters": ["name", 1], "page": 1, "page_size": 10}
    write = (*_KEY, errors.Forbidden, *_BODY, Duplicate)
    return KindExamples(
        search={
            "responses": {
                200: answer(f"One page of {kind}s.", page_example(row), "Page"),
                **refusals(*_KEY, *_BODY),
            },
            "openapi_extra": body(query),
        },
        read={
            "responses": {
                200: answer(f"The {kind}.", {"data": row, "status": True}),
                **refusals(*_KEY, errors.NotFound, errors.Invalid),
            }
        },
        create={
            "responses": {
                created: answer(f"The {kind} is there.", saved_answer(kind, ID, "hello"), "Saved"),
                **refusals(*write),
            },
            "openapi_extra": body(authored),
        },
        update={
            "responses": {
                200: answer(f"The {kind} is changed.", updated_answer(kind, row), "Saved"),
                **refusals(*write, errors.NotFound),
            },
            "openapi_extra": body({"description": "Another one."}),
        },
        delete={
            "responses": {
                200: answer(
                    f"The {kind} is gone.",
                    {"data": deleted, "message": f"{kind} deleted", "status": True},
                ),
                **refusals(*_KEY, errors.Forbidden, errors.NotFound, errors.Invalid),
            }
        },
        created=created,
    )

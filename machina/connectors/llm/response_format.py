"""A JSON schema as a provider takes it: what the request says under `response_format`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME: Final = 64
_MAX_DEPTH: Final = 64
# Keywords that some providers refuse; the caller checks the answer against the original.
_DROPPED: Final = frozenset(
    (
        "$schema",
        "title",
        "default",
        "examples",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "uniqueItems",
    )
)
_MAPS_OF_SCHEMAS: Final = frozenset(("properties", "$defs", "definitions"))
_VALUES: Final = frozenset(("enum", "const", "required", "description", "type", "$ref"))


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Asks for an answer of this shape, with the schema reduced to what providers agree on."""
    title = schema.get("title")
    name = _NOT_IN_NAME.sub("_", title if isinstance(title, str) else "").strip("_")[:_MAX_NAME]
    return {
        "type": "json_schema",
        "json_schema": {"name": name or "answer", "schema": _reduced(schema, 0)},
    }


def _reduced(schema: Any, depth: int) -> Any:
    if isinstance(schema, list):
        return [_reduced(item, depth + 1) for item in schema]
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return schema
    reduced: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _DROPPED:
            continue
        if key in _MAPS_OF_SCHEMAS and isinstance(value, Mapping):
            reduced[key] = {name: _reduced(inner, depth + 1) for name, inner in value.items()}
        else:
            reduced[key] = value if key in _VALUES else _reduced(value, depth + 1)
    return _without_union(reduced)


def _without_union(schema: dict[str, Any]) -> dict[str, Any]:
    """`type: [object, "null"]` as `anyOf`, which more providers take."""
    types = schema.get("type")
    if not isinstance(types, list):
        return schema
    described = {key: schema[key] for key in ("description",) if key in schema}
    inner = {key: value for key, value in schema.items() if key not in ("type", "description")}
    choices = [{"type": type, **(inner if type != "null" else {})} for type in types]
    return {**described, "anyOf": choices}

"""A JSON schema as a provider takes it: what the request says under `response_format`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from machina.connectors.llm.well_formed import well_formed

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME: Final = 64
# Bounds that some providers refuse. The model still reads them, as words of the description; the
# caller checks the answer against the original.
_BOUNDS: Final = (
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
    "format",
    "pattern",
)
_KEPT: Final = frozenset(("$ref", "const", "description", "enum", "required", "type"))
_SCHEMAS: Final = frozenset(("additionalProperties", "items"))
_LISTS_OF_SCHEMAS: Final = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_MAPS_OF_SCHEMAS: Final = frozenset(("$defs", "definitions", "properties"))
_MAX_BOUND_CHARS: Final = 100


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Asks for an answer of this shape, with the schema reduced to what providers agree on."""
    title = schema.get("title")
    name = _NOT_IN_NAME.sub("_", title if isinstance(title, str) else "").strip("_")[:_MAX_NAME]
    return {
        "type": "json_schema",
        "json_schema": {"name": name or "answer", "schema": _reduced(well_formed(schema))},
    }


def _reduced(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    reduced: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _KEPT:
            reduced[key] = value
        elif key in _SCHEMAS:
            reduced[key] = _reduced(value)
        elif key in _LISTS_OF_SCHEMAS:
            reduced[key] = [_reduced(inner) for inner in value]
        elif key in _MAPS_OF_SCHEMAS:
            reduced[key] = {name: _reduced(inner) for name, inner in value.items()}
    if reduced.get("properties"):
        # Several providers insist on it.
        reduced.setdefault("additionalProperties", False)
    bounds = _bounds_in_words(schema)
    if bounds:
        described = reduced.get("description")
        reduced["description"] = f"{described} ({bounds})" if described else bounds
    return _without_union(reduced)


def _bounds_in_words(schema: Mapping[str, Any]) -> str:
    words = (f"{key} {schema[key]}" for key in _BOUNDS if schema.get(key, False) is not False)
    return ", ".join(word for word in words if len(word) <= _MAX_BOUND_CHARS)


def _without_union(schema: dict[str, Any]) -> dict[str, Any]:
    """`type: [object, "null"]` as `anyOf`, which more providers take."""
    types = schema.get("type")
    if not isinstance(types, list):
        return schema
    described = {key: schema[key] for key in ("description",) if key in schema}
    inner = {key: value for key, value in schema.items() if key not in ("type", "description")}
    choices = [_choice(type, inner) for type in types]
    return {**described, "anyOf": choices}


def _choice(type: str, inner: Mapping[str, Any]) -> dict[str, Any]:
    if type == "null":
        return {"type": type}
    if "enum" in inner:
        inner = {**inner, "enum": [value for value in inner["enum"] if value is not None]}
    return {"type": type, **inner}

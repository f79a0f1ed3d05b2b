"""A JSON schema as its author meant it: what is no keyword, or no value of one, is left out. Pure.

Schemas come from templates: they may be malformed, endless, or point into the network. What comes
out of here is bounded, refers only to itself, and means no more than the original.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 64
"""What lies deeper is not asked for and not checked."""
MAX_SCHEMAS: Final = 10_000
"""Schemas in a schema."""

TYPES: Final = frozenset(("object", "array", "string", "integer", "number", "boolean", "null"))

_DROP: Final = object()


def well_formed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with well-formed keywords only.

    `nullable` becomes a union with null, a list of `items` becomes `prefixItems`, types are lower
    case. References that leave the document are dropped, and so are `patternProperties`, together
    with the `additionalProperties` that depend on them.
    """
    clean = _Walk().schema(schema, 0)
    return clean if isinstance(clean, dict) else {}


class _Walk:
    """Counts the schemas on the way."""

    def __init__(self) -> None:
        self._left = MAX_SCHEMAS

    def schema(self, value: Any, depth: int) -> Any:
        if isinstance(value, bool):
            return value
        self._left -= 1
        if not isinstance(value, Mapping) or depth > MAX_DEPTH or self._left < 0:
            return {}
        clean: dict[str, Any] = {}
        for key, inner in value.items():
            read = _READERS.get(key)
            kept = _DROP if read is None else read(self, inner, depth + 1)
            if kept is not _DROP:
                clean["prefixItems" if key == "items" and isinstance(kept, list) else key] = kept
        if "patternProperties" in value:
            clean.pop("additionalProperties", None)
        return _with_null(clean) if value.get("nullable") is True else clean


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI's `nullable` in the words of JSON Schema."""
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = types if "null" in types else [*types, "null"]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    return schema


Reader = Callable[[_Walk, Any, int], Any]


def _type(_: _Walk, value: Any, _depth: int) -> Any:
    named = [
        name.casefold()
        for name in (value if isinstance(value, list) else [value])
        if isinstance(name, str) and name.casefold() in TYPES
    ]
    named = list(dict.fromkeys(named))
    if not named:
        return _DROP
    return named if isinstance(value, list) and len(named) > 1 else named[0]


def _schema(walk: _Walk, value: Any, depth: int) -> Any:
    return walk.schema(value, depth) if isinstance(value, Mapping | bool) else _DROP


def _items(walk: _Walk, value: Any, depth: int) -> Any:
    return _schemas(walk, value, depth) if isinstance(value, list) else _schema(walk, value, depth)


def _schemas(walk: _Walk, value: Any, depth: int) -> Any:
    if not isinstance(value, list):
        return _DROP
    inner = [walk.schema(item, depth) for item in value if isinstance(item, Mapping | bool)]
    return inner or _DROP


def _named_schemas(walk: _Walk, value: Any, depth: int) -> Any:
    if not isinstance(value, Mapping):
        return _DROP
    return {str(name): walk.schema(inner, depth) for name, inner in value.items()}


def _names(_: _Walk, value: Any, _depth: int) -> Any:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else _DROP


def _text(_: _Walk, value: Any, _depth: int) -> Any:
    return value if isinstance(value, str) else _DROP


def _flag(_: _Walk, value: Any, _depth: int) -> Any:
    return value if isinstance(value, bool) else _DROP


def _values(_: _Walk, value: Any, _depth: int) -> Any:
    return value if isinstance(value, list) and value else _DROP


def _value(_: _Walk, value: Any, _depth: int) -> Any:
    return value


def _count(_: _Walk, value: Any, _depth: int) -> Any:
    return value if _is_number(value) and value >= 0 and value == int(value) else _DROP


def _bound(_: _Walk, value: Any, _depth: int) -> Any:
    return value if _is_number(value) else _DROP


def _divisor(_: _Walk, value: Any, _depth: int) -> Any:
    return value if _is_number(value) and value > 0 else _DROP


def _reference(_: _Walk, value: Any, _depth: int) -> Any:
    return value if isinstance(value, str) and (value == "#" or value.startswith("#/")) else _DROP


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_READERS: Final[Mapping[str, Reader]] = {
    "$defs": _named_schemas,
    "$ref": _reference,
    "additionalProperties": _schema,
    "allOf": _schemas,
    "anyOf": _schemas,
    "const": _value,
    "default": _value,
    "definitions": _named_schemas,
    "description": _text,
    "else": _schema,
    "enum": _values,
    "exclusiveMaximum": _bound,
    "exclusiveMinimum": _bound,
    "format": _text,
    "if": _schema,
    "items": _items,
    "maxItems": _count,
    "maxLength": _count,
    "maxProperties": _count,
    "maximum": _bound,
    "minItems": _count,
    "minLength": _count,
    "minProperties": _count,
    "minimum": _bound,
    "multipleOf": _divisor,
    "not": _schema,
    "oneOf": _schemas,
    "pattern": _text,
    "prefixItems": _schemas,
    "properties": _named_schemas,
    "propertyNames": _schema,
    "required": _names,
    "then": _schema,
    "title": _text,
    "type": _type,
    "uniqueItems": _flag,
}

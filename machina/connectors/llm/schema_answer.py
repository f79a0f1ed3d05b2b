"""The smallest instance of a JSON schema, always the same one: what the scripted model answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 1000
MAX_TEXT: Final = 1000

_FORMATS: Final = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_TYPES: Final = ("object", "array", "string", "integer", "number", "boolean", "null")


def answer_for(schema: Mapping[str, Any]) -> Any:
    """A value of the schema's shape: `const`, first of `enum`, `default`, else by type.

    Objects carry all their properties, arrays one item or `minItems`. Bounds of numbers, lengths
    and items are kept, `pattern` is not; of `anyOf`, `oneOf` and `allOf` the first one counts. What
    lies deeper than `MAX_DEPTH`, or comes after `MAX_VALUES` values, is null.
    """
    return _Answer(schema).instance(schema, "answer", 0)


class _Answer:
    """Holds the root, which `$ref` needs, and how many values may still be made."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = MAX_VALUES

    def instance(self, schema: Any, name: str, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH or not isinstance(schema, Mapping):
            return None
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        if "default" in schema:
            return schema["default"]
        inner = self._inner(schema)
        if inner is not None:
            return self.instance(inner, name, depth + 1)
        return self._by_type(schema, name, depth)

    def _inner(self, schema: Mapping[str, Any]) -> Any:
        """The schema that this one points at, if it does."""
        for key in ("anyOf", "oneOf", "allOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and choices:
                return choices[0]
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return None
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        return target

    def _by_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return _integer(schema)
            case "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema, name)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, Mapping) else {}
        required = schema.get("required")
        names = dict.fromkeys([*properties, *(required if isinstance(required, list) else [])])
        return {
            str(key): self.instance(properties.get(key, {}), str(key), depth + 1) for key in names
        }

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        count = min(_count(schema, "minItems", 1), _count(schema, "maxItems", MAX_VALUES))
        items = schema.get("items", {})
        return [self.instance(items, name, depth + 1) for _ in range(min(count, MAX_VALUES))]


def _type_of(schema: Mapping[str, Any]) -> str:
    declared = schema.get("type")
    for type in declared if isinstance(declared, list) else [declared]:
        if type in _TYPES:
            return str(type)
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), name)
    shortest = min(_count(schema, "minLength", 0), MAX_TEXT)
    return text.ljust(shortest, ".")[: _count(schema, "maxLength", MAX_TEXT)]


def _integer(schema: Mapping[str, Any]) -> int:
    above = _bound(schema, "exclusiveMinimum")
    least = max(math.ceil(_bound(schema, "minimum")), math.floor(above) + 1, 0)
    return min(least, math.floor(_bound(schema, "maximum", least)))


def _number(schema: Mapping[str, Any]) -> float:
    least = max(_bound(schema, "minimum"), _bound(schema, "exclusiveMinimum") + 1, 0)
    return min(least, _bound(schema, "maximum", least))


def _bound(schema: Mapping[str, Any], key: str, otherwise: float = -1) -> float:
    value = schema.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return otherwise


def _count(schema: Mapping[str, Any], key: str, otherwise: int) -> int:
    value = schema.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return otherwise

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
_LOWEST: Final = -(2**53)
_HIGHEST: Final = 2**53
_PYTHON: Final[Mapping[Any, Any]] = {
    "object": Mapping,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def answer_for(schema: Mapping[str, Any]) -> Any:
    """A value of the schema's shape: `const`, first of `enum`, a fitting `default`, else by type.

    Objects carry all their properties, arrays one item or `minItems`. Bounds of numbers, lengths
    and items are kept, `pattern` is not; of `anyOf` and `oneOf` the first one counts, of a union
    of types the first that is not null. What lies deeper than `MAX_DEPTH`, or comes after
    `MAX_VALUES` values, is null.
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
        if _default_fits(schema):
            return schema["default"]
        inner = self._inner(schema)
        if inner is not None:
            return self.instance(inner, name, depth + 1)
        return self._by_type(schema, name, depth)

    def _inner(self, schema: Mapping[str, Any]) -> Any:
        """The schema that this one points at, if it does."""
        parts = schema.get("allOf")
        if isinstance(parts, list) and parts:
            return _united([{k: v for k, v in schema.items() if k != "allOf"}, *parts])
        for key in ("anyOf", "oneOf"):
            choices = schema.get(key)
            if isinstance(choices, list) and choices:
                rest = {k: v for k, v in schema.items() if k != key}
                return _united([rest, choices[0]])
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
        count = min(count, MAX_VALUES)
        items = schema.get("items", {})
        if schema.get("uniqueItems") is True:
            return self._different(items, name, depth, count)
        return [self.instance(items, name, depth + 1) for _ in range(count)]

    def _different(self, items: Any, name: str, depth: int, count: int) -> list[Any]:
        """Items that differ, as far as an enum, a number or a text can."""
        schema = items if isinstance(items, Mapping) else {}
        values = schema.get("enum")
        if isinstance(values, list) and values:
            return values[:count]
        first = self.instance(items, name, depth + 1)
        if isinstance(first, str):
            return [first, *(f"{first}-{number}" for number in range(2, count + 1))][:count]
        if type(first) in (int, float):
            return [first + number for number in range(count)]
        return [first][:count]


def _default_fits(schema: Mapping[str, Any]) -> bool:
    """Whether there is a default that the rest of the schema allows."""
    if "default" not in schema:
        return False
    value, declared = schema["default"], schema.get("type")
    types = declared if isinstance(declared, list) else [declared]
    known = [type for type in types if isinstance(type, str) and type in _PYTHON]
    return not known or any(_is_of_type(value, type) for type in known)


def _is_of_type(value: Any, type: str) -> bool:
    if isinstance(value, bool):
        return type == "boolean"
    return isinstance(value, _PYTHON[type])


def _united(parts: list[Any]) -> dict[str, Any]:
    """One schema that asks for what all of them ask for, as far as properties go."""
    united: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        for key, value in part.items():
            before = united.get(key)
            if key == "properties" and isinstance(before, Mapping) and isinstance(value, Mapping):
                value = {**before, **value}
            elif key == "required" and isinstance(before, list) and isinstance(value, list):
                value = [*before, *value]
            united[key] = value
    return united


def _type_of(schema: Mapping[str, Any]) -> str:
    declared = schema.get("type")
    named = declared if isinstance(declared, list) else [declared]
    known = [type for type in named if isinstance(type, str) and type in _PYTHON]
    if known:
        return next((type for type in known if type != "null"), "null")
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), name)
    shortest = min(_count(schema, "minLength", 0), MAX_TEXT)
    return text.ljust(shortest, ".")[: _count(schema, "maxLength", MAX_TEXT)]


def _integer(schema: Mapping[str, Any]) -> int:
    low = max(math.ceil(_bound(schema, "minimum", _LOWEST)), _LOWEST)
    low = max(low, math.floor(_bound(schema, "exclusiveMinimum", _LOWEST)) + 1)
    high = min(math.floor(_bound(schema, "maximum", _HIGHEST)), _HIGHEST)
    high = min(high, math.ceil(_bound(schema, "exclusiveMaximum", _HIGHEST)) - 1)
    step = max(int(_bound(schema, "multipleOf", 1)), 1)
    if low <= 0 <= high:
        return 0
    return min(-(-low // step) * step, high) if low > 0 else high // step * step


def _number(schema: Mapping[str, Any]) -> float:
    low, high = _bound(schema, "minimum", _LOWEST), _bound(schema, "maximum", _HIGHEST)
    above = _bound(schema, "exclusiveMinimum", low - 1)
    below = _bound(schema, "exclusiveMaximum", high + 1)
    if low <= 0 <= high and above < 0 < below:
        return 0
    nearest = min(max(low, 0), high)
    if above < nearest < below:
        return nearest
    # Half way between the bounds, or one away from the only bound there is.
    low, high = max(low, above), min(high, below)
    if high >= _HIGHEST:
        return low + 1
    return high - 1 if low <= _LOWEST else (low + high) / 2


def _bound(schema: Mapping[str, Any], key: str, otherwise: float) -> float:
    value = schema.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return otherwise


def _count(schema: Mapping[str, Any], key: str, otherwise: int) -> int:
    value = schema.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return otherwise

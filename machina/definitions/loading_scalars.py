"""What a YAML scalar means: YAML 1.1 as PyYAML reads it, as long as JSON can hold the value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

_PREFIX: Final = "tag:yaml.org,2002:"
_INT64: Final = range(-(2**63), 2**63)
_MAX_DIGITS: Final = 100
"""Characters of the longest notation of a 64-bit number, with room for underscores."""
_AS_WRITTEN: Final = frozenset(("str", "timestamp", "binary", "value", "merge"))
"""Types whose values stay the text that was written."""

_resolver: Final[Any] = Resolver()
_constructor: Final[Any] = SafeConstructor()


class ScalarRefused(Exception):
    """A tag that is not allowed here, or a text that is no value of its tag."""


def read_scalar(text: str, tag: str | None, *, plain: bool) -> Any:
    """The JSON value of a scalar.

    Args:
        text: What was written, escapes and folding undone.
        tag: The tag that was written; `!` means text.
        plain: Whether it was written without quotes and tag, so that its form says its type.

    Raises:
        ScalarRefused: the message says which tag.
    """
    if tag is None or (tag == "!" and not plain):
        return _read(text, _implied(text)) if plain else text
    if tag == "!":
        return text
    name = tag.removeprefix(_PREFIX)
    if name == tag or (name not in _READERS and name not in _AS_WRITTEN):
        raise ScalarRefused(f"the tag {tag!r:.80} is not allowed; remove it")
    try:
        return text if name in _AS_WRITTEN else _READERS[name](text)
    except (ValueError, LookupError):
        raise ScalarRefused(f"{text!r:.80} is no value of the tag {tag!r}") from None


def _implied(text: str) -> str:
    tag = _resolver.resolve(yaml.ScalarNode, text, (True, False))
    return str(tag).removeprefix(_PREFIX)


def _read(text: str, name: str) -> Any:
    reader = _READERS.get(name)
    if reader is None:
        return text
    try:
        return reader(text)
    except ValueError:  # `0b_` looks like a number and is none
        return text


def _read_int(text: str) -> int | str:
    if len(text) > _MAX_DIGITS:
        return text
    value: int = _constructor.construct_yaml_int(_node(text))
    return value if value in _INT64 else text


def _read_float(text: str) -> float | str:
    if len(text) > _MAX_DIGITS:
        return text
    value: float = _constructor.construct_yaml_float(_node(text))
    return value if math.isfinite(value) else text


def _read_bool(text: str) -> bool:
    value: bool = _constructor.construct_yaml_bool(_node(text))
    return value


def _node(text: str) -> yaml.ScalarNode:
    return yaml.ScalarNode(_PREFIX + "str", text)


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "int": _read_int,
    "float": _read_float,
    "bool": _read_bool,
    "null": lambda _: None,
}

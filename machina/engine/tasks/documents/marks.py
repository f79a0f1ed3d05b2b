"""Tells operators that an author wrote from those that arrived inside data.

`{'$in': [1, 2]}` in a template is an operator; the same dictionary in a request is a value, and
must not turn an equality into another question. Evaluated, the two look alike. So the operators in
the template's own text are renamed before it is evaluated, into words that no data can contain:
wherever such a word comes out, through whatever expression, an author wrote it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

_MARK: Final = f"\ue000{secrets.token_hex(8)}:"
"""Stands for the `$` of an authored operator; new in each process, and never leaves this module."""
_QUOTED_KEY: Final = re.compile(r"(?P<quote>['\"])\$(?P<name>[A-Za-z]\w*)(?P=quote)(?=\s*:)")
_KEY: Final = re.compile(r"\$([A-Za-z]\w*)")


class Operator(str):
    """A key that is an operator of the query language because an author wrote it as one."""

    __slots__ = ()


def mark(authored: Any) -> Any:
    """A value of a template with every operator in it marked; evaluate it, then `unmark`."""
    if isinstance(authored, str):
        return _QUOTED_KEY.sub(rf"\g<quote>{_MARK}\g<name>\g<quote>", authored)
    if isinstance(authored, Mapping):
        return {_mark_key(key): mark(value) for key, value in authored.items()}
    if isinstance(authored, list | tuple):
        return [mark(item) for item in authored]
    return authored


def has_operators(authored: Any) -> bool:
    """Whether a value of a template contains operators at all."""
    return bool(mark(authored) != authored)


def unmark(value: Any) -> Any:
    """The value with `Operator` for every marked key; other texts get their `$` back."""
    if isinstance(value, str):
        return value.replace(_MARK, "$") if _MARK in value else value
    if isinstance(value, Mapping):
        return {_unmark_key(key): unmark(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [unmark(item) for item in value]
    return value


def transfer(marked: Any, value: Any) -> Any:
    """The value with the marks of another evaluation of the same text, where the two are alike."""
    if isinstance(marked, Mapping) and isinstance(value, Mapping):
        names = {key: plain(key) for key in marked}
        if list(names.values()) != list(value):
            return value
        return {key: transfer(marked[key], value[name]) for key, name in names.items()}
    if isinstance(marked, list) and isinstance(value, list) and len(marked) == len(value):
        return [transfer(one, other) for one, other in zip(marked, value, strict=True)]
    return value


def plain(text: Any) -> Any:
    """A text, such as an error message, with the `$` of every mark."""
    return text.replace(_MARK, "$") if isinstance(text, str) else text


def _mark_key(key: Any) -> Any:
    match = _KEY.fullmatch(key) if isinstance(key, str) else None
    return _MARK + match[1] if match else key


def _unmark_key(key: Any) -> Any:
    if isinstance(key, str) and key.startswith(_MARK):
        return Operator("$" + key.removeprefix(_MARK).replace(_MARK, "$"))
    return unmark(key)

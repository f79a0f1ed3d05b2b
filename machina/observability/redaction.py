"""Hides known secrets: the values a run resolved, also where they stand in an encoded form.

Patterns (`logging.py`) find what looks like a credential; this finds what is one. `watch` makes the
log lines of the current context pass through a redactor as well.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final
from urllib.parse import quote, quote_plus

import orjson
from structlog.typing import EventDict

MASK: Final = "***"
SHORTEST: Final = 6
"""Shorter values are no secrets worth the name, and would be found in ordinary words."""

_SHORTEST_BASE64: Final = 8
_MAX_DEPTH: Final = 200
_MAX_JSON: Final = 100_000
_SECRET_FIELD: Final = re.compile(
    r"(?i:(?:^|[_. -])(?:api[_-]?key|apikey|key|authorization|auth|bearer(?:auth)?|basicauth"
    r"|cookie|credentials?|passwd|password|secret|token|webhook[_-]?url))\Z"
    r"|(?:Secret|Token|Password|Key|KeyId|Credentials?)\Z|(?i:private[_-]key[_-]id)\Z"
)


def is_secret_field(name: str) -> bool:
    """Whether a field of this name usually holds a credential."""
    return _SECRET_FIELD.search(name) is not None


class Redactor:
    """The secrets that one run knows. Learning is cheap, and asking one that knows none is free."""

    __slots__ = ("_forms", "_names")

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._forms: dict[str, bytes] = {}
        """Every form of every secret, longest first, and how it stands in JSON."""

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to hide."""
        return not self._forms

    def learn(self, name: str, value: object) -> None:
        """Hides a value from now on; `name` is what a checkpoint keeps in its place."""
        if not isinstance(value, str) or value in self._names or len(value.strip()) < SHORTEST:
            return
        self._names[value] = name
        forms = {form for form in _forms_of(value) if len(form) >= SHORTEST}
        for leaf in _secret_leaves(value):
            forms.update(form for form in _forms_of(leaf) if len(form) >= SHORTEST)
        known = sorted(forms | self._forms.keys(), key=len, reverse=True)
        self._forms = {form: json.dumps(form)[1:-1].encode() for form in known}

    def text(self, text: str) -> str:
        """The text with every known secret masked."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def value(self, value: Any) -> Any:
        """Plain data with every known secret masked, in keys too; itself when there is none."""
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        written = _written(value)
        found = [form for form, data in self._forms.items() if written is None or data in written]
        return _masked(value, found, 0) if found else value

    def parts(self, text: str) -> list[str | list[str]] | None:
        """The text cut at the secrets in it, each replaced by `[name]`; None without any.

        Only values as they are can be put back; other forms of them are masked for good.
        """
        parts: list[str | list[str]] = [text]
        for value in sorted(self._names, key=len, reverse=True):
            if value in text:
                parts = list(_cut(parts, value, self._names[value]))
        if len(parts) == 1 and parts[0] == text:
            masked = self.text(text)
            return None if masked == text else [masked]
        return [self.text(part) if isinstance(part, str) else part for part in parts]

    def open_end(self, text: str) -> int:
        """How many characters at the end of a text may be the beginning of a secret."""
        longest = 0
        for form in self._forms:
            start = max(0, len(text) - len(form) + 1)
            at = text.find(form[0], start)
            while at >= 0:
                if form.startswith(text[at:]):
                    longest = max(longest, len(text) - at)
                    break
                at = text.find(form[0], at + 1)
        return longest


_watching: ContextVar[Redactor | None] = ContextVar("machina_redactor", default=None)


def watch(redactor: Redactor) -> None:
    """Masks what this redactor knows in the log lines of the current context and its tasks."""
    _watching.set(redactor)


def mask_known(logger: Any, method: str, event: EventDict) -> EventDict:
    """A structlog processor: masks the secrets of the run that writes this line."""
    redactor = _watching.get()
    if redactor is not None and not redactor.is_idle:
        for name, value in event.items():
            event[name] = redactor.value(value)
    return event


def _written(value: Any) -> bytes | None:
    """The value as ASCII JSON, to look for secrets in all of it at once; None if it has no such."""
    try:
        data = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
        return data if data.isascii() else json.dumps(orjson.loads(data)).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _masked(value: Any, forms: list[str], depth: int) -> Any:
    if isinstance(value, str):
        for form in forms:
            if form in value:
                value = value.replace(form, MASK)
        return value
    if depth > _MAX_DEPTH:
        return MASK
    if isinstance(value, Mapping):
        return {
            _masked(key, forms, depth + 1): _masked(inner, forms, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(inner, forms, depth + 1) for inner in value]
    return value


def _cut(parts: list[str | list[str]], value: str, name: str) -> Iterator[str | list[str]]:
    for part in parts:
        if not isinstance(part, str):
            yield part
            continue
        first, *others = part.split(value)
        if first or not others:
            yield first
        for other in others:
            yield [name]
            if other:
                yield other


def _forms_of(value: str) -> Iterator[str]:
    for text in {value, value.strip()}:
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield repr(text)[1:-1]
        data = text.encode("utf-8", "surrogatepass")
        yield quote(data, safe="")
        yield quote(data)
        yield quote_plus(data)
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(data).decode().rstrip("=")
            yield from _inside_base64(data, encode)


def _inside_base64(data: bytes, encode: Any) -> Iterator[str]:
    """How the data looks inside a longer text in base64, such as `user:password`."""
    for offset in range(3):
        written = encode(b"\0" * offset + data).decode()
        end = (offset + len(data)) * 8 // 6
        inside = written[(offset * 8 + 5) // 6 : end]
        if len(inside) >= _SHORTEST_BASE64:
            yield inside


def _secret_leaves(value: str) -> Iterator[str]:
    """The credentials inside a secret that is a JSON object, such as a service account."""
    if len(value) > _MAX_JSON or not value.lstrip().startswith("{"):
        return
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        return
    if isinstance(parsed, dict):
        for name, leaf in parsed.items():
            if isinstance(leaf, str) and is_secret_field(name) and len(leaf) >= SHORTEST:
                yield leaf

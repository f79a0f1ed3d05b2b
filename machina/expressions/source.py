"""Turns an author's text into Python source: every `$` that is code becomes a name."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

_PLAIN_RUN = re.compile(r"[^$'\"#()\[\]{}:!=]+")
_STATE_KEY = re.compile(r"\$\.\(([^()\n]*)\)")
_BARE_KEY = re.compile(r"[\w.:@ -]+")
_QUOTED_KEY = re.compile(r"'[^'\"\\\n]+'|\"[^'\"\\\n]+\"")
_STRING_PREFIX = re.compile(r"(?<!\w)[rRbBuUfF]{1,2}\Z")
_STRING_END = {quote: re.compile(rf"\\.|{quote}", re.DOTALL) for quote in ("'", '"', "'''", '"""')}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_KNOWN_ESCAPES = frozenset("\n\\'\"abfnrtv01234567xNuU")
_FIELD_MARK = re.compile(r"\\N\{[^{}]*\}|\\.|\{\{|\}\}|\{", re.DOTALL)
_TAKEN_NAME = re.compile(r"_subject(?=(_*))")
_FORMAT_LEVELS = 2  # Python does not parse more
_STRICT_OPERATORS = {"!==": "!=", "===": "=="}


class Source(NamedTuple):
    """Python source, and what the names in it stand for that no author wrote."""

    code: str
    subject: str  # the name that stands for `$`
    state_keys: dict[str, str]  # names that stand for `$.(key)`
    is_balanced: bool  # no bracket is closed that was not opened
    nesting: int  # the deepest nesting of brackets


def scan(text: str) -> Source:
    """Rewrites `$`, `$.(key)`, `===` and `!==` outside string literals and inside f-string fields.

    Values never enter the source: a state key is replaced by a name, not by what it holds.
    Python 3.11 takes an f-string for one token, so its fields are found here.
    """
    scanner = _Scanner(text)
    code = scanner.code(text)
    return Source(code, scanner.subject, scanner.state_keys, scanner.is_balanced, scanner.deepest)


def state_key(inside: str) -> str | None:
    """The key in `$.(key)` or `$.('key')`, given what stands between the brackets."""
    inside = inside.strip()
    if _QUOTED_KEY.fullmatch(inside):
        return inside[1:-1]
    return inside if _BARE_KEY.fullmatch(inside) else None


class _Scanner:
    """One pass over one text. Strings are cut out first, as Python 3.11 does, then looked into."""

    def __init__(self, text: str) -> None:
        self.subject = _unused_name(text)
        self.state_keys: dict[str, str] = {}
        self.is_balanced = True
        self.deepest = 0
        self._depth = 0

    def code(self, text: str) -> str:
        """Rewrites a piece of code up to its end."""
        out: list[str] = []
        end = self._code(text, 0, out, in_field=False)
        out.append(text[end:])
        return "".join(out)

    def _code(self, text: str, at: int, out: list[str], *, in_field: bool) -> int:
        """Copies code from `at`; a field ends before its `}` or before the `:` of its format."""
        floor = self._depth
        while at < len(text):
            run = _PLAIN_RUN.match(text, at)
            if run:
                out.append(run.group())
                at = run.end()
                continue
            char = text[at]
            if in_field and self._depth == floor and char in ":}":
                break
            if char == "$":
                at = self._dollar(text, at, out)
            elif char in "'\"":
                at = self._string(text, at, out)
            elif char == "#":
                at = _end_of_line(text, at)
            else:
                at = self._mark(text, at, out)
        self._depth = floor if in_field else self._depth
        return at

    def _mark(self, text: str, at: int, out: list[str]) -> int:
        """Copies a bracket or an operator; JavaScript's strict ones lose their third character."""
        operator = _STRICT_OPERATORS.get(text[at : at + 3])
        if operator:
            out.append(operator)
            return at + 3
        char = text[at]
        if char in "([{":
            self._depth += 1
            self.deepest = max(self.deepest, self._depth)
        elif char in ")]}":
            self._depth -= 1
            self.is_balanced = self.is_balanced and self._depth >= 0
        out.append(char)
        return at + 1

    def _dollar(self, text: str, at: int, out: list[str]) -> int:
        """Writes the name for `$` or `$.(key)`; the blank after it keeps `$foo` no name at all."""
        match = _STATE_KEY.match(text, at) if text.startswith("$.(", at) else None
        key = state_key(match.group(1)) if match else None
        if match is None or key is None:
            out.append(f"{self.subject} ")
            return at + 1
        name = f"{self.subject}{len(self.state_keys)}"
        self.state_keys[name] = key
        out.append(f"{name} ")
        return match.end()

    def _string(self, text: str, at: int, out: list[str]) -> int:
        """Copies one string token; `at` stands on its opening quote, the prefix is out already."""
        quote = text[at : at + 3] if text.startswith(text[at] * 3, at) else text[at]
        match = _STRING_PREFIX.search(text[max(0, at - 3) : at])
        prefix = match.group().lower() if match else ""
        start = at + len(quote)
        end = _end_of_string(text, start, quote)
        if end is None:
            out.append(text[at:])  # never closed: the parser will say so
            return len(text)
        body = text[start:end]
        out.append(quote)
        if "f" in prefix:
            self._formatted(body, out, is_raw="r" in prefix)
        else:
            out.append(body if "r" in prefix else _ESCAPE.sub(_keep_backslash, body))
        out.append(quote)
        return end + len(quote)

    def _formatted(self, body: str, out: list[str], *, is_raw: bool) -> None:
        """Copies the text of an f-string and rewrites the code in its fields."""
        at = 0
        for_raw_too = ("{{", "}}", "{")
        while match := _FIELD_MARK.search(body, at):
            mark = match.group()
            if is_raw and mark not in for_raw_too:
                out.append(body[at : match.start() + 1])  # a backslash is only a backslash
                at = match.start() + 1
                continue
            out.append(body[at : match.start()])
            at = match.end()
            if mark == "{":
                out.append(mark)
                at = self._field(body, at, out)
            else:
                out.append(_ESCAPE.sub(_keep_backslash, mark))
        out.append(body[at:])

    def _field(self, body: str, at: int, out: list[str], level: int = 0) -> int:
        """Copies `code`, `code!r` or `code:format`; a format may hold fields of its own."""
        at = self._code(body, at, out, in_field=True)
        if at < len(body) and body[at] == ":":
            while at < len(body) and body[at] != "}":
                out.append(body[at])
                at += 1
                if body[at - 1] == "{" and level < _FORMAT_LEVELS:
                    at = self._field(body, at, out, level + 1)
        if at < len(body):
            out.append(body[at])
            at += 1
        return at


def _unused_name(text: str) -> str:
    """A name that the author cannot have written, also not in letters that Python folds to it."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    runs = _TAKEN_NAME.findall(text)
    return "_subject" + "_" * (1 + max(map(len, runs)) if runs else 0)


def _end_of_string(text: str, start: int, quote: str) -> int | None:
    for match in _STRING_END[quote].finditer(text, start):
        if match.group() == quote:
            return match.start()
    return None


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _keep_backslash(escape: re.Match[str]) -> str:
    r"""Doubles the backslash of an unknown escape such as `\d`: same text, and no warning."""
    return escape.group() if escape.group(1) in _KNOWN_ESCAPES else "\\" + escape.group()


def text_parts(text: str) -> list[tuple[str, str | None]]:
    """Splits text at its `$.(key)`: pairs of plain text and the state key that follows it."""
    parts: list[tuple[str, str | None]] = []
    at = 0
    for match in _STATE_KEY.finditer(text):
        key = state_key(match.group(1))
        if key is not None:
            parts.append((text[at : match.start()], key))
            at = match.end()
    parts.append((text[at:], None))
    return parts

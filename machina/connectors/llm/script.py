"""The directive that tells the scripted model how to behave, written into the last user message.

[[script: tokens=200 delay_ms=5 fail_after=10 error=provider_rate_limited]]

tokens=N             answer `tok-0 tok-1 …`, N deltas (0–1 000 000)
text="…"             answer this, word by word; `\\"`, `\\\\` and `\\n` are escapes (64 KiB)
delay_ms=N           between two deltas (0–600 000); else the provider's pace
first_ms=N           before the first delta (0–600 000)
fail_after=N         fail after N deltas with the code `error`
error=CODE           one of the port's codes (`provider_unavailable`); alone: before any delta
stall_after=N        say nothing more after N deltas, until closed or out of time
disconnect_after=N   break off after N deltas (`provider_cut`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from machina.errors import ModelFailed

OPENING: Final = "[[script:"
MAX_TOKENS: Final = 1_000_000
MAX_DELAY_MS: Final = 600_000
MAX_TEXT_BYTES: Final = 64 * 1024

ERROR_CODES: Final = (
    "provider_unauthorized",
    "provider_not_found",
    "provider_rate_limited",
    "provider_rejected",
    "provider_unavailable",
    "provider_timeout",
    "provider_cut",
    "provider_invalid",
)
_NUMBERS: Final = {
    "tokens": MAX_TOKENS,
    "delay_ms": MAX_DELAY_MS,
    "first_ms": MAX_DELAY_MS,
    "fail_after": MAX_TOKENS,
    "stall_after": MAX_TOKENS,
    "disconnect_after": MAX_TOKENS,
}
_NAMES: Final = (*_NUMBERS, "text", "error")
_ITEM = re.compile(r'\s*([A-Za-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"\[\]]+)(?=\s|\]\])', re.DOTALL)
_CLOSING = re.compile(r"\s*\]\]")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Script:
    """How one answer goes. None: as the provider does by itself."""

    tokens: int | None = None
    text: str | None = None
    delay_ms: int | None = None
    first_ms: int = 0
    fail_after: int | None = None
    error: str = "provider_unavailable"
    stall_after: int | None = None
    disconnect_after: int | None = None


def parse_script(message: str) -> Script:
    """Reads the directive in a message; a message without one gives the default script.

    Raises:
        ModelFailed: `provider_rejected`, saying what is wrong with the directive.
    """
    start = message.find(OPENING)
    if start < 0:
        return Script()
    if message.find(OPENING, start + 1) >= 0:
        raise _rejected("there is more than one")
    items = _read_items(message, start + len(OPENING))
    if "tokens" in items and "text" in items:
        raise _rejected("tokens and text exclude each other")
    ends = [name for name in ("fail_after", "stall_after", "disconnect_after") if name in items]
    if len(ends) > 1:
        raise _rejected(f"{' and '.join(ends)} exclude each other")
    if "error" in items and not ends:
        items["fail_after"] = 0
    elif "error" in items and ends != ["fail_after"]:
        raise _rejected(f"error goes with fail_after, not with {ends[0]}")
    return Script(**items)  # type: ignore[arg-type]  # _value gave each name a value of its type


def _read_items(message: str, position: int) -> dict[str, int | str]:
    items: dict[str, int | str] = {}
    while not _CLOSING.match(message, position):
        item = _ITEM.match(message, position)
        if item is None:
            excerpt = message[position : position + 40].strip()
            raise _rejected(f"expected name=value or ']]' at {excerpt!r}")
        name, value = item[1], item[2]
        if name not in _NAMES:
            raise _rejected(f"{name[:40]!r} is unknown; known are {', '.join(_NAMES)}")
        if name in items:
            raise _rejected(f"{name} is given twice")
        items[name] = _value(name, value)
        position = item.end()
    return items


def _value(name: str, value: str) -> int | str:
    if name in _NUMBERS:
        most = _NUMBERS[name]
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) <= most):
            raise _rejected(f"{name} must be a whole number from 0 to {most}, not {value[:40]!r}")
        return int(value)
    if name == "error":
        if value not in ERROR_CODES:
            raise _rejected(f"error must be one of {', '.join(ERROR_CODES)}, not {value[:40]!r}")
        return value
    if value.startswith('"'):
        value = _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], value[1:-1])
    if len(value.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise _rejected(f"text is longer than {MAX_TEXT_BYTES} bytes")
    return value


def _rejected(what: str) -> ModelFailed:
    return ModelFailed(
        f"The scripted model cannot follow the [[script: …]] directive: {what}.",
        code="provider_rejected",
        retryable=False,
    )

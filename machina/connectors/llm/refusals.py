"""What a provider's refusal means: from an HTTP status or an error object to a `ModelFailed`."""

from __future__ import annotations

import email.utils
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from machina.errors import ModelFailed

MAX_RETRY_AFTER_SECONDS: Final = 60.0
MAX_EXCERPT: Final = 200
KEY_VARIABLE: Final = "OPENAI_API_KEY"
URL_VARIABLE: Final = "OPENAI_BASE_URL"
"""Where key and base URL of the configured provider come from."""

_STATUS_BY_WORD: Final = {
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "context_length_exceeded": 400,
    "invalid_request_error": 400,
}
_NO_QUOTA: Final = "insufficient_quota"


@dataclass(frozen=True, slots=True)
class Callee:
    """Whom a message is about: the host of the base URL, the model, and whether a key was sent."""

    host: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    key_variable: str = KEY_VARIABLE
    url_variable: str = URL_VARIABLE

    def excerpt(self, text: object) -> str:
        """A short, harmless quotation of what the provider said."""
        words = str(text)
        if self.api_key:
            words = words.replace(self.api_key, "***")
        words = " ".join("".join(c if c.isprintable() else " " for c in words[:4096]).split())
        return words if len(words) <= MAX_EXCERPT else words[: MAX_EXCERPT - 1] + "…"


def refused_status(
    status: int, body: bytes, callee: Callee, *, retry_after: float | None = None
) -> ModelFailed:
    """The failure for an HTTP status other than 2xx; `body` may be cut off."""
    try:
        error = _error_of(json.loads(body))
    except (ValueError, RecursionError):
        error = {"message": body.decode("utf-8", "replace")}
    return _failure(status, f"HTTP {status}", error, callee, retry_after)


def refused_inside(payload: Mapping[str, Any], callee: Callee) -> ModelFailed:
    """The failure for an error object that came with status 200, in the stream or instead of it."""
    error = _error_of(payload)
    return _failure(_status_of(error), "an error in the answer", error, callee, None)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from `Retry-After` as seconds or as a date; at most a minute.

    Args:
        value: the header, if there was one. What cannot be read counts as absent.
        now: seconds since the epoch.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now)
    if math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS)


def _seconds_until(date: str, now: float) -> float:
    try:
        when = email.utils.parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.nan
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.fromtimestamp(now, UTC)).total_seconds(), 0.0)


def _error_of(payload: Any) -> Mapping[str, Any]:
    if isinstance(payload, list) and payload:
        payload = payload[0]  # Gemini wraps the object
    if isinstance(payload, dict) and "error" in payload:
        payload = payload["error"]
    return payload if isinstance(payload, dict) else {"message": payload}


def _status_of(error: Mapping[str, Any]) -> int:
    for key in ("code", "status", "type"):
        word = error.get(key)
        if isinstance(word, str) and word in _STATUS_BY_WORD:
            return _STATUS_BY_WORD[word]
        if isinstance(word, str) and len(word) == 3 and word.isdecimal():
            word = int(word)
        if isinstance(word, int) and 400 <= word <= 599:
            return word
    return 503


def _failure(
    status: int, what: str, error: Mapping[str, Any], callee: Callee, retry_after: float | None
) -> ModelFailed:
    said = callee.excerpt(error.get("message") or error)
    if status in (401, 403):
        # Providers quote the key, or half of it, in this message: it is not passed on.
        advice = f"{'check' if callee.api_key else 'set'} {callee.key_variable}"
        message, code = f"{callee.host} did not admit us ({what}): {advice}", "unauthorized"
    elif status == 404:
        message = (
            f"{callee.host} does not know the model {callee.excerpt(callee.model)!r}, or "
            f"{callee.url_variable} lacks its path ({what}): {said}"
        )
        code = "not_found"
    elif status == 429:
        message, code = f"{callee.host} limits our rate ({what}): {said}", "rate_limited"
    elif 300 <= status < 400:
        where = callee.url_variable
        message = f"{callee.host} redirects ({what}): set {where} to where it really is"
        code = "rejected"
    elif status >= 500:
        message, code = f"{callee.host} is out of order ({what}): {said}", "unavailable"
    else:
        message, code = f"{callee.host} rejected the request ({what}): {said}", "rejected"
    may_pass = code == "unavailable" or (code == "rate_limited" and error.get("code") != _NO_QUOTA)
    return ModelFailed(
        message, code=f"provider_{code}", retryable=may_pass, retry_after=retry_after
    )

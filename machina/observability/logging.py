"""Logs: one event per line, JSON in production, readable in `dev`, stdlib loggers included.

Every line carries the process, and what is bound in this context (`request_id`, `run_id`,
`attempt`). Nothing that a caller sends can forge a line or move a terminal's cursor, and values
that look like credentials are masked.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import Processor

from machina.observability.redaction import MASK, mask_known
from machina.settings import Settings

_SECRET_NAMES: Final = re.compile(
    r"(?:^|_)(?:api_?key|authorization|cookie|passwd|password|secret|token)$", re.IGNORECASE
)
_SECRET_TEXT: Final = re.compile(
    r"(?P<url>://[^/@\s:]*:)[^@\s/]+(?=@)"
    r"|(?P<bearer>\bBearer\s+)[A-Za-z0-9._~+/=-]+"
    r"|(?P<key>\bsk-)[A-Za-z0-9_-]{12,}"
    r"|(?P<ours>\bmk_[0-9a-f]{8}_)[A-Za-z0-9_-]{12,}"
    r"|(?P<query>[?&](?:api_?key|api_token|token|password|secret)=)[^&\s]+"
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_STRUCTURE: Final = ("exception", "stack")
_QUIET: Final = ("dramatiq", "httpx", "httpcore", "asyncio", "aiohttp")
"""Libraries that tell more than anybody asked for: warnings and worse only."""

EventDict = MutableMapping[str, Any]


def configure(settings: Settings, *, process: str, stream: TextIO | None = None) -> None:
    """Sets up logging for this process, to standard error unless `stream` is given.

    Call it once, when a process starts; a second call replaces the first.
    """
    level = getattr(logging, settings.log_level.upper())
    plain = settings.environment == "dev"
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _Bind(process=process),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*before, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            mask_secrets,
            mask_known,
            *_renderers(plain, stream or sys.stderr),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def mask_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """A structlog processor: masks what looks like a credential, by name and by form."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = MASK
        elif isinstance(value, str):
            event[name] = _SECRET_TEXT.sub(_masked, value)
        elif not isinstance(value, int | float | bool | None):
            event[name] = _masked_within(value)
    return event


def escape_controls(logger: Any, method: str, event: EventDict) -> EventDict:
    """A structlog processor: escapes control characters, so that one event stays one line.

    JSON does this by itself; only tracebacks keep their lines, for people to read.
    """
    for name, value in event.items():
        if isinstance(value, str) and name not in _LINE_STRUCTURE:
            event[name] = _CONTROL.sub(_escaped, value)
        elif isinstance(value, str):
            event[name] = "\n".join(_CONTROL.sub(_escaped, line) for line in value.split("\n"))
    return event


class _Bind:
    """Adds the same fields to every event."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        for name, value in self._fields.items():
            event.setdefault(name, value)
        return event


def _renderers(plain: bool, stream: TextIO) -> list[Processor]:
    if plain:
        console = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            # The default formatter shows local variables when it can: those hold secrets.
            exception_formatter=structlog.dev.plain_traceback,
        )
        return [escape_controls, console]
    return [structlog.processors.JSONRenderer(serializer=_to_json)]


def _to_json(event: EventDict, **_: Any) -> str:
    options = orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS
    text = orjson.dumps(dict(event), default=repr, option=options).decode()
    # orjson leaves what is above ASCII alone, and some of it ends lines or moves cursors too.
    return _CONTROL.sub(_escaped, text)


def _masked(match: re.Match[str]) -> str:
    return next(kept for kept in match.groupdict().values() if kept is not None) + MASK


def _masked_within(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(_masked, value)
    if isinstance(value, dict):
        return {
            name: MASK if _SECRET_NAMES.search(str(name)) else _masked_within(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked_within(inner) for inner in value]
    if isinstance(value, int | float | bool | None):
        return value
    return _SECRET_TEXT.sub(_masked, str(value))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"

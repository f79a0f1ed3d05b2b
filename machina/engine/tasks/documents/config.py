"""Reads what a document task sets: truth values, numbers and sorters in all their written forms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from machina.engine.blocks import evaluate_value
from machina.engine.document_door import Sort
from machina.engine.tasks.base import TaskCall
from machina.errors import DefinitionInvalid, TaskFailed

UNEVALUATED: Final = ("embed-selector", "connector")
"""Settings with a `$` of their own."""
_FALSE_WORDS: Final = ("", "false", "0", "no", "off", "none", "null")
_DIRECTIONS: Final[Mapping[Any, Literal[1, -1]]] = {
    1: 1, -1: -1, "1": 1, "-1": -1, "asc": 1, "desc": -1, "ascending": 1, "descending": -1,
}  # fmt: skip


async def read_config(call: TaskCall) -> dict[str, Any]:
    """The evaluated `config` block.

    Raises:
        DefinitionInvalid: it is no dictionary.
        ExpressionFailed: a setting that is an expression raised.
    """
    raw = call.task.raw.get("config") or {}
    if not isinstance(raw, Mapping):
        raise DefinitionInvalid(
            f"'config' of {call.where} must be a dictionary, not {type(raw).__name__}."
        )
    config = {}
    for key, value in raw.items():
        if key not in UNEVALUATED:
            value = await evaluate_value(call.ctx, value, call.scope, f"{call.where}, config.{key}")
        config[str(key)] = value
    return config


async def read_connector(call: TaskCall, config: Mapping[str, Any]) -> dict[str, Any]:
    """The connector that embeds: the task's own block over `config.connector`, evaluated."""
    named = config.get("connector")
    block = dict(named) if isinstance(named, Mapping) else {"name": named} if named else {}
    where = f"{call.where}, connector"
    evaluated = await evaluate_value(call.ctx, {**block, **call.task.connector}, call.scope, where)
    return dict(evaluated)


def is_on(value: Any) -> bool:
    """Whether a switch is on; words for false are false."""
    return value.strip().lower() not in _FALSE_WORDS if isinstance(value, str) else bool(value)


def read_number(value: Any, default: float, name: str, where: str) -> float:
    """A number that may be written as text; null is the default.

    Raises:
        TaskFailed: it is no number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise TaskFailed(f"'{name}' of {where} is a number, not {value!r:.80}; correct it.")
    return number


def read_count(value: Any, default: int, most: int, name: str, where: str) -> int:
    """A whole number from 1 to `most`; zero and less mean as many as there may be.

    Raises:
        TaskFailed: it is no number.
    """
    count = int(read_number(value, default, name, where))
    return min(count, most) if count > 0 else most


def read_sort(written: Any, where: str) -> Sort:
    """Sorters as pairs: `[f, 1]`, `[f, 1, g, -1]`, `[[f, 1], [g, -1]]`, `{f: 1}`; null is none.

    Raises:
        TaskFailed: they are none of these.
    """
    if written is None or written in ("", []):
        return []
    if isinstance(written, str):
        written = [written]
    if isinstance(written, Mapping):
        written = [part for pair in written.items() for part in pair]
    if not isinstance(written, list | tuple):
        raise _no_sorters(written, where)
    return _pairs(_flat(written), where)


def _flat(written: Sequence[Any]) -> list[Any]:
    parts: list[Any] = []
    for part in written:
        parts += part if isinstance(part, list | tuple) else [part]
    return parts


def _pairs(parts: list[Any], where: str) -> list[tuple[str, Literal[1, -1]]]:
    pairs: list[tuple[str, Literal[1, -1]]] = []
    at = 0
    while at < len(parts):
        field = parts[at]
        following = parts[at + 1] if at + 1 < len(parts) else None
        direction = _direction(following)
        if not isinstance(field, str) or not field or _direction(field) is not None:
            raise _no_sorters(parts, where)
        if at + 1 < len(parts) and direction is None and not isinstance(following, str):
            raise _no_sorters(parts, where)
        pairs.append((field, direction or 1))
        at += 1 if direction is None else 2
    return pairs


def _direction(part: Any) -> Literal[1, -1] | None:
    if isinstance(part, bool) or not isinstance(part, int | float | str):
        return None
    return _DIRECTIONS.get(part.strip().lower() if isinstance(part, str) else part)


def _no_sorters(written: Any, where: str) -> TaskFailed:
    return TaskFailed(
        f"The sorters of {where} are {written!r:.120}; write pairs of a field and 1 or -1."
    )

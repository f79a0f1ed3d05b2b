"""Reads a structured answer: finds the JSON in what a model said and checks it by its schema."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import orjson

from machina.engine.tasks.schema_budget import CheckTooCostly
from machina.engine.tasks.schemas import MAX_SECONDS, MAX_STEPS, AnswerChecks, check
from machina.errors import DefinitionInvalid

MAX_STARTS: Final = 40
"""Braces in the prose around an answer that are tried as its beginning."""

_FENCE: Final = re.compile(r"```[A-Za-z]{0,20}[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_QUICK_CHARS: Final = 16_000
_QUICK_STEPS: Final = 400
_QUICK_SECONDS: Final = 0.005
_CHECKS: Final = AnswerChecks()


class AnswerInvalid(ValueError):
    """The answer is not what the schema asks for; the message tells the model what is wrong."""


async def read_checked(text: str, schema: Mapping[str, Any], where: str) -> Any:
    """What a model answered, once it is what the schema asks for; nothing is filled in.

    Small answers are read in place, others where they do not hold up other runs.

    Raises:
        AnswerInvalid: the answer is no JSON, or not by the schema.
        DefinitionInvalid: the schema takes too long to check.
    """
    problems = _CHECKS.find(schema)
    if problems is not None and len(text) <= _QUICK_CHARS:
        answer = read_answer(text, schema)
        try:
            wrong = check(problems, answer, steps=_QUICK_STEPS, seconds=_QUICK_SECONDS)
        except CheckTooCostly:
            pass  # then as a large one
        else:
            return _accept(answer, wrong)
    return await asyncio.to_thread(_read_and_check, text, schema, where)


def read_answer(text: str, schema: Mapping[str, Any] | None = None) -> Any:
    """The JSON a model answered with; a Markdown fence and prose around it are taken off.

    It is an object, unless the schema asks for something else.

    Raises:
        AnswerInvalid: there is no JSON, or JSON of another type.
    """
    wanted = None if schema is None else schema.get("type")
    any_type = isinstance(wanted, str) and wanted.casefold() != "object"
    found: list[Any] = []
    for answer in _candidates(text):
        if any_type or isinstance(answer, dict):
            return answer
        found.append(answer)
    raise AnswerInvalid("it is JSON, but not an object" if found else _explain(text))


def _candidates(text: str) -> Iterator[Any]:
    """What may be meant: the whole text, then what is fenced, then what begins with a brace."""
    stripped = text.strip("\ufeff \t\r\n")
    for candidate in (stripped, *(match[1] for match in _FENCE.finditer(stripped))):
        try:
            yield orjson.loads(candidate)
        except orjson.JSONDecodeError:
            continue
    yield from _embedded(stripped)


def _embedded(text: str) -> list[Any]:
    """The objects in a text, the longest first; an empty one says nothing."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    found: list[tuple[int, Any]] = []
    position = text.find("{")
    for _ in range(MAX_STARTS):
        if position < 0:
            break
        try:
            answer, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            if answer:
                found.append((end - position, answer))
        position = text.find("{", end)
    return [answer for _, answer in sorted(found, key=lambda pair: -pair[0])]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _explain(text: str) -> str:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"it is not valid JSON ({error})"
    return "it is not valid JSON"


def _read_and_check(text: str, schema: Mapping[str, Any], where: str) -> Any:
    answer = read_answer(text, schema)
    problems = _CHECKS.find(schema) or _CHECKS.compile(schema)
    try:
        wrong = check(problems, answer, steps=MAX_STEPS, seconds=MAX_SECONDS)
    except CheckTooCostly:
        raise DefinitionInvalid(
            f"The schema of {where} takes too long to check an answer by; simplify it."
        ) from None
    return _accept(answer, wrong)


def _accept(answer: Any, wrong: list[str]) -> Any:
    if wrong:
        raise AnswerInvalid(f"it does not follow the schema ({'; '.join(wrong)})")
    return answer

"""Reads a structured answer: finds the JSON in what a model said and checks its shape. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

_FENCE: Final = re.compile(r"\s*```[A-Za-z]*\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


class AnswerInvalid(ValueError):
    """The answer is not what the schema asks for; the message tells the model what is wrong."""


def read_answer(text: str) -> dict[str, Any]:
    """The object a model answered with; a Markdown fence around it is taken off.

    Raises:
        AnswerInvalid: the text is no JSON, or JSON of another type.
    """
    fenced = _FENCE.match(text)
    try:
        answer = orjson.loads(fenced[1] if fenced else text)
    except orjson.JSONDecodeError as error:
        raise AnswerInvalid(f"it is not valid JSON ({error})") from None
    if not isinstance(answer, dict):
        raise AnswerInvalid("it is JSON, but not an object")
    return answer

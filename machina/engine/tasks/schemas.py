"""Checks answers of models against the schemas of their authors, in bounded time and offline."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from threading import Lock
from typing import Any, Final

import orjson

from machina.connectors.llm.well_formed import well_formed
from machina.engine.tasks.schema_budget import STEPS, Steps, TooDeep
from machina.events import encode_json

MAX_STEPS: Final = 100_000
"""Keywords that checking one answer may look at."""
MAX_SECONDS: Final = 1.5
"""Of the thread's own computing, so that a busy machine fails no answer."""
MAX_PROBLEMS: Final = 5
"""Problems named to the model at once."""
MAX_CACHED: Final = 256

Problems = Callable[[Any], Iterator[str]]


class AnswerChecks:
    """Compiled schemas, kept by their content. Safe in threads."""

    def __init__(self, most: int = MAX_CACHED) -> None:
        self._most = most
        self._compiled: OrderedDict[bytes, Problems] = OrderedDict()
        self._lock = Lock()

    def find(self, schema: Mapping[str, Any]) -> Problems | None:
        """The compiled schema, when there is one already."""
        key = _content(schema)
        with self._lock:
            if key in self._compiled:
                self._compiled.move_to_end(key)
            return self._compiled.get(key)

    def compile(self, schema: Mapping[str, Any]) -> Problems:
        """Compiles a schema and keeps it; takes a while, the first time of all much longer."""
        # Here, for it takes a quarter of a second, which workers without prompts save.
        from machina.engine.tasks.schema_compiler import compile_schema  # noqa: PLC0415  # as said

        problems = compile_schema(well_formed(schema))
        with self._lock:
            self._compiled[_content(schema)] = problems
            while len(self._compiled) > self._most:
                self._compiled.popitem(last=False)
        return problems


def check(problems: Problems, answer: Any, *, steps: int, seconds: float) -> list[str]:
    """What is wrong with an answer, at most `MAX_PROBLEMS` of it; nothing when it is right.

    Raises:
        CheckTooCostly: it took more than `steps` or `seconds`.
    """
    token = STEPS.set(Steps(steps, seconds))
    try:
        return list(islice(problems(answer), MAX_PROBLEMS))
    except (TooDeep, RecursionError):
        return ["it is nested too deep"]
    finally:
        STEPS.reset(token)


def _content(schema: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(
            schema, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS
        )
    except orjson.JSONEncodeError:  # dates, integers over 64 bits, other mappings
        return encode_json(schema)

"""Schemas compiled with the `jsonschema` library, whose keywords here count their work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
import structlog
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from machina.engine.tasks.schema_budget import STEPS
from machina.store.base import QueryRefused
from machina.store.regexes import Search, compile_search

log = structlog.get_logger(__name__)

MAX_PROBLEM: Final = 240
"""Characters of one problem."""
MAX_PATTERNS: Final = 256

_REPEATED_SHOWN: Final = 80


def compile_schema(schema: Mapping[str, Any]) -> Callable[[Any], Iterator[str]]:
    """What is wrong with an answer by this well-formed schema, problem by problem.

    Checking raises `CheckTooCostly` and `TooDeep`; set `STEPS` before.
    """
    keywords: dict[str, Any] = dict(Draft202012Validator.VALIDATORS)
    keywords |= {"pattern": _check_pattern, "uniqueItems": _check_unique}
    counted = {name: _counted(keyword) for name, keyword in keywords.items()}
    checker: Any = validators.extend(  # type: ignore[no-untyped-call]  # the library's omission
        Draft202012Validator, validators=counted
    )
    # An empty registry: nothing is ever fetched.
    validator = checker(schema, registry=Registry())

    def problems(answer: Any) -> Iterator[str]:
        try:
            for error in validator.iter_errors(answer):
                yield _in_words(error.json_path, error.message)
        except Unresolvable as missing:
            log.warning("schema.reference_missing", reference=str(missing)[:MAX_PROBLEM])

    return problems


def _counted(keyword: Any) -> Any:
    def check_keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        steps = STEPS.get()
        steps.enter()
        yield from keyword(validator, value, instance, schema) or ()
        steps.leave()

    return check_keyword


def _check_pattern(_: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    search = _searcher(pattern) if isinstance(instance, str) else None
    if search is None:
        return
    try:
        is_found = search(instance)
    except QueryRefused:
        log.warning("schema.pattern_costly", pattern=pattern[:MAX_PROBLEM])
        return
    if not is_found:
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@lru_cache(maxsize=MAX_PATTERNS)
def _searcher(pattern: str) -> Search | None:
    """The pattern as an automaton that cannot run away; None when it cannot be one."""
    try:
        return compile_search(pattern)
    except QueryRefused as refused:
        log.warning("schema.pattern_ignored", pattern=pattern[:MAX_PROBLEM], why=refused.message)
        return None


def _check_unique(_: Any, is_wanted: bool, instance: Any, _schema: Any) -> Iterator[Any]:
    """As the library's, in time that grows only with the length of the list."""
    if not is_wanted or not isinstance(instance, list):
        return
    seen: set[bytes] = set()
    for item in instance:
        key = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
        if key in seen:
            yield ValidationError(f"{repr(item)[:_REPEATED_SHOWN]} occurs more than once")
            return
        seen.add(key)


def _in_words(path: str, message: str) -> str:
    place = path.removeprefix("$").removeprefix(".") or "the object"
    if len(message) > MAX_PROBLEM:
        message = f"{message[: MAX_PROBLEM // 2]} … {message[-MAX_PROBLEM // 2 :]}"
    return f"{place}: {message}"

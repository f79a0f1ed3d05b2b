"""Compiles lists, tuples, sets and dicts that are written out, with `*` and `**` in them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from machina.expressions.closure import BUDGET, Builder, Closure, Frame
from machina.expressions.values import check_key, collect, iterate, type_name

_ENTRY = 100  # bytes of an entry in a dict or set


def list_display(node: ast.List, build: Builder) -> Closure:
    """`[a, *b]`."""
    return items_of(node.elts, build)


def tuple_display(node: ast.Tuple, build: Builder) -> Closure:
    """`(a, *b)`."""
    items = items_of(node.elts, build)
    return lambda frame: tuple(items(frame))


def set_display(node: ast.Set, build: Builder) -> Closure:
    """`{a, *b}`."""
    items = items_of(node.elts, build)

    def members(frame: Frame) -> set[Any]:
        found: set[Any] = set()
        for item in items(frame):
            check_key(frame[BUDGET], item, len(found))
            found.add(item)
        return found

    return members


def items_of(nodes: list[ast.expr], build: Builder) -> Closure:
    """A closure that gives the list of some values, those with a star spread out."""
    if not any(isinstance(node, ast.Starred) for node in nodes):
        return _plain_items([build(node) for node in nodes])
    parts = [
        (build(node.value), True) if isinstance(node, ast.Starred) else (build(node), False)
        for node in nodes
    ]

    def spread(frame: Frame) -> list[Any]:
        items: list[Any] = []
        budget = frame[BUDGET]
        for value, is_starred in parts:
            if is_starred:
                items.extend(collect(budget, value(frame)))
            else:
                items.append(value(frame))
        return items

    return spread


def _plain_items(values: list[Closure]) -> Closure:
    if len(values) == 1:
        only = values[0]
        return lambda frame: [only(frame)]
    return lambda frame: [value(frame) for value in values]


def dict_display(node: ast.Dict, build: Builder) -> Closure:
    """`{key: value, **other}`."""
    keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
    if all(type(key) is str and "$" not in key for key in keys):
        return _record([str(key) for key in keys], [build(value) for value in node.values])
    steps = [
        _entry(build(key), build(value)) if key else _merged(build(value))
        for key, value in zip(node.keys, node.values, strict=True)
    ]

    def entries(frame: Frame) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for step in steps:
            step(frame, found)
        return found

    return entries


def _record(keys: list[str], values: list[Closure]) -> Closure:
    """The common case: all keys are plain text."""
    fields = list(zip(keys, values, strict=True))
    return lambda frame: {key: value(frame) for key, value in fields}


def _entry(key: Closure, value: Closure) -> Callable[[Frame, dict[Any, Any]], None]:
    def add(frame: Frame, found: dict[Any, Any]) -> None:
        name = key(frame)
        check_key(frame[BUDGET], name, len(found))
        found[name] = value(frame)

    return add


def _merged(other: Closure) -> Callable[[Frame, dict[Any, Any]], None]:
    def add(frame: Frame, found: dict[Any, Any]) -> None:
        mapping = other(frame)
        if type(mapping) is not dict:
            raise TypeError(f"'{type_name(mapping)}' object is not a mapping")
        iterate(frame[BUDGET], mapping)
        frame[BUDGET].take(_ENTRY * len(mapping))
        found.update(mapping)

    return add

"""Compiles what stands for itself: constants, `$`, `context`, variables, functions, members."""

from __future__ import annotations

import ast

from machina.expressions.closure import BUDGET, OUTSIDE, SCOPE, Builder, Closure, Frame
from machina.expressions.fstrings import text_with_state
from machina.expressions.functions import FUNCTIONS
from machina.expressions.grammar import CONSTANT_NAMES, CONTEXT
from machina.expressions.methods import attribute_of


def constant(node: ast.Constant, build: Builder) -> Closure:
    """A number, a text (with the `$.(key)` in it filled in), True, False or None."""
    if type(node.value) is str:
        return text_with_state(node.value, build.source)
    return fixed(node.value)


def fixed(value: object) -> Closure:
    """A closure that always gives the same value."""
    return lambda frame: value


def name(node: ast.Name, build: Builder) -> Closure:
    """A variable, `$`, `$.(key)`, `context`, a constant in JSON's spelling, or a function."""
    place = build.find(node.id)
    if place:
        return _variable(*place)
    if node.id == build.source.subject:
        return subject
    if node.id == CONTEXT:
        return state
    key = build.source.state_keys.get(node.id)
    if key is not None:
        return lambda frame: frame[SCOPE].state(key)
    if node.id in CONSTANT_NAMES:
        return fixed(CONSTANT_NAMES[node.id])
    return fixed(FUNCTIONS[node.id])


def subject(frame: Frame) -> object:
    """A bare `$`."""
    given = frame[SCOPE].subject
    if type(given) is dict:
        return given
    value: object = frame[SCOPE].value()
    if type(value) is dict:
        frame[BUDGET].take(64 * len(value))  # it may have been copied
    return value


def state(frame: Frame) -> object:
    """A bare `context`, or `$.context`."""
    given = frame[SCOPE].context
    if type(given) is not dict:
        frame[BUDGET].take(64 * len(given))
    whole: object = frame[SCOPE].whole_state()
    return whole


def attribute(node: ast.Attribute, build: Builder) -> Closure:
    """`$.context`, or a part of a value such as `.days`."""
    if node.attr == CONTEXT and build.is_free(node.value, build.source.subject):
        return state
    owner, wanted = build(node.value), node.attr
    return lambda frame: attribute_of(owner(frame), wanted)


def _variable(distance: int, slot: int) -> Closure:
    if distance == 0:
        return lambda frame: frame[slot]
    if distance == 1:
        return lambda frame: frame[OUTSIDE][slot]

    def outer(frame: Frame) -> object:
        for _ in range(distance):
            frame = frame[OUTSIDE]
        value: object = frame[slot]
        return value

    return outer

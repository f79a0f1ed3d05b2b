"""Compiles operators: `and`, `or`, comparisons, `… if … else …`, arithmetic, subscripts."""

from __future__ import annotations

import ast
from typing import Any

from machina.expressions.closure import BUDGET, Builder, Closure, Frame
from machina.expressions.operators import BINARY, COMPARISONS, UNARY, item_of


def boolean(node: ast.BoolOp, build: Builder) -> Closure:
    """`a and b …`, `a or b …`: gives the value that decides, and evaluates no further."""
    first, *others = [build(value) for value in node.values]
    for other in others:
        first = _both(first, other) if isinstance(node.op, ast.And) else _either(first, other)
    return first


def _both(left: Closure, right: Closure) -> Closure:
    return lambda frame: left(frame) and right(frame)


def _either(left: Closure, right: Closure) -> Closure:
    return lambda frame: left(frame) or right(frame)


def comparison(node: ast.Compare, build: Builder) -> Closure:
    """`a < b`, also chained: `a < b < c` evaluates `b` once."""
    left = build(node.left)
    steps = [
        (COMPARISONS[type(kind)], build(other))
        for kind, other in zip(node.ops, node.comparators, strict=True)
    ]
    if len(steps) == 1:
        operation, right = steps[0]
        return lambda frame: operation(frame[BUDGET], left(frame), right(frame))

    def chained(frame: Frame) -> Any:
        value = left(frame)
        result: Any = True
        for operation, other in steps:
            following = other(frame)
            result = operation(frame[BUDGET], value, following)
            if not result:
                break
            value = following
        return result

    return chained


def conditional(node: ast.IfExp, build: Builder) -> Closure:
    """`a if condition else b`."""
    condition, chosen, other = build(node.test), build(node.body), build(node.orelse)
    return lambda frame: chosen(frame) if condition(frame) else other(frame)


def binary(node: ast.BinOp, build: Builder) -> Closure:
    """Arithmetic on two values."""
    operation = BINARY[type(node.op)]
    left, right = build(node.left), build(node.right)
    return lambda frame: operation(frame[BUDGET], left(frame), right(frame))


def unary(node: ast.UnaryOp, build: Builder) -> Closure:
    """`not a`, `-a`, `+a`."""
    operation, operand = UNARY[type(node.op)], build(node.operand)
    return lambda frame: operation(operand(frame))


def subscript(node: ast.Subscript, build: Builder) -> Closure:
    """`a[key]`, `a[start:stop:step]`."""
    container, key = build(node.value), build(node.slice)
    return lambda frame: item_of(frame[BUDGET], container(frame), key(frame))


def bounds(node: ast.Slice, build: Builder) -> Closure:
    """The `start:stop:step` of a subscript."""
    parts = [build(part) if part else _nothing for part in (node.lower, node.upper, node.step)]
    start, stop, step = parts
    return lambda frame: slice(start(frame), stop(frame), step(frame))


def _nothing(_: Frame) -> None:
    return None

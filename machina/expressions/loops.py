"""Compiles comprehensions, generator expressions and lambdas: what binds names of its own."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from machina.expressions.budget import Budget
from machina.expressions.closure import (
    BUDGET,
    FIRST_VARIABLE,
    SCOPE,
    Builder,
    Closure,
    Frame,
    cost_of,
    weight_of,
)
from machina.expressions.grammar import Comprehension, elements_of, target_names
from machina.expressions.values import Function, Stream, check_key, iterate, step_through

_ENTRY = 100  # bytes of an entry in a dict or set
_Assign = Callable[[Frame, Any], None]


class _Loop(NamedTuple):
    """One `for … in … if …` of a comprehension."""

    items: Closure
    assign: _Assign
    conditions: list[Closure]
    cost: int  # steps of one round


class _Plan(NamedTuple):
    """A comprehension, compiled: its loops and what it yields in the innermost one."""

    loops: list[_Loop]
    elements: list[Closure]
    width: int
    weight: int

    def open(self, frame: Frame) -> Frame:
        """A frame for one run of the comprehension."""
        return [frame[SCOPE], frame[BUDGET], frame, *[None] * self.width]


def list_comprehension(node: ast.ListComp, build: Builder) -> Closure:
    """`[element for target in items if condition]`."""
    plan = _plan(node, build)
    element = plan.elements[0]
    loop = plan.loops[0]
    if len(plan.loops) == 1 and isinstance(node.generators[0].target, ast.Name):
        return _selected(plan, element) if loop.conditions else _mapped(plan, element)

    def collected(frame: Frame) -> list[Any]:
        budget, inner = frame[BUDGET], plan.open(frame)
        found: list[Any] = []
        for _ in _rounds(plan.loops, inner, iterate(budget, loop.items(frame), loop.cost)):
            budget.take(plan.weight)
            found.append(element(inner))
        return found

    return collected


def _mapped(plan: _Plan, element: Closure) -> Closure:
    """The common case: one loop over one name, without conditions."""
    loop, weight = plan.loops[0], plan.weight

    def collected(frame: Frame) -> list[Any]:
        budget, inner = frame[BUDGET], plan.open(frame)
        source = loop.items(frame)
        items = iterate(budget, source, loop.cost)
        if type(source) is Stream:
            items = _paying(budget, items, weight)
        else:
            budget.take(weight * len(source))
        return [element(inner) for inner[FIRST_VARIABLE] in items]

    return collected


def _selected(plan: _Plan, element: Closure) -> Closure:
    """The next common case: one loop over one name, with conditions."""
    loop, weight = plan.loops[0], plan.weight
    condition, *others = loop.conditions

    def collected(frame: Frame) -> list[Any]:
        budget, inner = frame[BUDGET], plan.open(frame)
        found: list[Any] = []
        for inner[FIRST_VARIABLE] in iterate(budget, loop.items(frame), loop.cost):
            if condition(inner) and all(other(inner) for other in others):
                budget.take(weight)
                found.append(element(inner))
        return found

    return collected


def _paying(budget: Budget, items: Iterable[Any], weight: int) -> Iterator[Any]:
    for item in items:
        budget.take(weight)
        yield item


def set_comprehension(node: ast.SetComp, build: Builder) -> Closure:
    """`{element for target in items}`."""
    plan = _plan(node, build)
    element, loop = plan.elements[0], plan.loops[0]

    def collected(frame: Frame) -> set[Any]:
        budget, inner = frame[BUDGET], plan.open(frame)
        found: set[Any] = set()
        for _ in _rounds(plan.loops, inner, iterate(budget, loop.items(frame), loop.cost)):
            budget.take(plan.weight + _ENTRY)
            member = element(inner)
            check_key(budget, member, len(found))
            found.add(member)
        return found

    return collected


def dict_comprehension(node: ast.DictComp, build: Builder) -> Closure:
    """`{key: value for target in items}`."""
    plan = _plan(node, build)
    (key, value), loop = plan.elements, plan.loops[0]

    def collected(frame: Frame) -> dict[Any, Any]:
        budget, inner = frame[BUDGET], plan.open(frame)
        found: dict[Any, Any] = {}
        for _ in _rounds(plan.loops, inner, iterate(budget, loop.items(frame), loop.cost)):
            budget.take(plan.weight + _ENTRY)
            name = key(inner)
            check_key(budget, name, len(found))
            found[name] = value(inner)
        return found

    return collected


def generator(node: ast.GeneratorExp, build: Builder) -> Closure:
    """`(element for target in items)`: the first items are found now, the rest when asked for."""
    plan = _plan(node, build)
    element, loop = plan.elements[0], plan.loops[0]

    def stream(frame: Frame) -> Stream:
        budget, inner = frame[BUDGET], plan.open(frame)
        source = loop.items(frame)
        rounds = _rounds(plan.loops, inner, step_through(budget, source, loop.cost))
        return Stream(budget, _produced(plan, inner, rounds, element), source)

    return stream


def _produced(plan: _Plan, inner: Frame, rounds: Iterator[None], element: Closure) -> Iterator[Any]:
    for _ in rounds:
        inner[BUDGET].take(plan.weight)
        yield element(inner)


def lambda_function(node: ast.Lambda, build: Builder) -> Closure:
    """`lambda a, b=1: body`."""
    names = tuple(argument.arg for argument in node.args.args)
    defaults = [build(default) for default in node.args.defaults]
    body = build.inside(names)(node.body)
    cost, weight = cost_of(node.body), weight_of(node.body) + 64
    return lambda frame: Function(
        body,
        frame,
        names,
        tuple(default(frame) for default in defaults),
        cost=cost,
        weight=weight,
    )


def _plan(node: Comprehension, build: Builder) -> _Plan:
    targets = [name for clause in node.generators for name in target_names(clause.target)]
    inner = build.inside(targets)
    elements = elements_of(node)
    loops = []
    for position, clause in enumerate(node.generators):
        following = node.generators[position + 1 : position + 2]
        once = [*clause.ifs, *(later.iter for later in following)]
        loops.append(
            _Loop(
                (inner if position else build)(clause.iter),
                _assignment(clause.target, inner),
                [inner(condition) for condition in clause.ifs],
                cost_of(*once, *(() if following else elements)),
            )
        )
    return _Plan(loops, [inner(element) for element in elements], inner.width, weight_of(*elements))


def _rounds(loops: list[_Loop], inner: Frame, items: Any, level: int = 0) -> Iterator[None]:
    """Goes through all loops, and stops wherever the innermost one has a round to offer."""
    loop = loops[level]
    conditions = loop.conditions
    is_innermost = level + 1 == len(loops)
    for item in items:
        loop.assign(inner, item)
        if conditions and not all(condition(inner) for condition in conditions):
            continue
        if is_innermost:
            yield None
        else:
            below = loops[level + 1]
            nested = step_through(inner[BUDGET], below.items(inner), below.cost)
            yield from _rounds(loops, inner, nested, level + 1)


def _assignment(target: ast.expr, build: Builder) -> _Assign:
    """How a loop binds an item: to a name, or part by part to a tuple of targets."""
    if isinstance(target, ast.Name):
        slot = build.slot(target.id)

        def assign(frame: Frame, item: Any) -> None:
            frame[slot] = item

        return assign
    assert isinstance(target, ast.Tuple | ast.List)  # noqa: S101  # the grammar saw to it
    parts = [_assignment(part, build) for part in target.elts]

    def unpack(frame: Frame, item: Any) -> None:
        values = _exactly(len(parts), step_through(frame[BUDGET], item))
        for part, value in zip(parts, values, strict=True):
            part(frame, value)

    return unpack


def _exactly(wanted: int, items: Iterator[Any]) -> list[Any]:
    values: list[Any] = []
    for item in items:
        if len(values) == wanted:
            raise ValueError(f"too many values to unpack (expected {wanted})")
        values.append(item)
    if len(values) < wanted:
        raise ValueError(f"not enough values to unpack (expected {wanted}, got {len(values)})")
    return values

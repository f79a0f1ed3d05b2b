"""What may leave an evaluation: plain data of a bounded size, no iterator and no function."""

from __future__ import annotations

import ast
from typing import Any

from machina.errors import BudgetExceeded
from machina.expressions.budget import Budget
from machina.expressions.functions import FUNCTIONS
from machina.expressions.grammar import CONTEXT, Comprehension, elements_of, parts_of
from machina.expressions.markup import Page
from machina.expressions.source import Source
from machina.expressions.values import (
    INTERNAL,
    MAX_NESTING,
    SCALARS,
    SETS,
    VIEWS,
    Stream,
    collect,
    type_name,
)

_MANY_NAMES = 64  # more of them could repeat the state too often
_PART = 8  # what a part adds to the size of what holds it
_SMALL = SCALARS - {str}
_LAZY_FUNCTIONS = frozenset({"enumerate", "zip", "map", "filter", "reversed", "range"})
_LAZY_METHODS = frozenset({"keys", "values", "items"})
_OPAQUE_FUNCTIONS = frozenset({"bs4", "__import__"})
_MEMBERS = {member for function in FUNCTIONS.values() for member in function.members} | {
    "datetime",
    "timedelta",
}
# Functions whose result cannot hold their first argument itself, though it may hold its parts.
_CONSUMERS = frozenset({"len", "next", "list", "tuple", "set", "dict", "sorted", "sum"}) | {
    "any",
    "all",
    "enumerate",
    "reversed",
    "isinstance",
}
_PLAIN_MAPPERS = frozenset({"str", "int", "float", "bool", "len", "repr", "abs", "round"})


def needs_settling(tree: ast.Expression, source: Source) -> bool:
    """Whether the result of a checked expression has to be looked through.

    Most expressions only pick data out of the state and need no second look. One does when
    an iterator or a function could be in its result, or when it could hold the same data so
    many times that it is small in memory and huge once it is written out.
    """
    parts = parts_of(tree)
    return _may_repeat(parts, source) or _may_leak(parts)


def settle(value: Any, budget: Budget) -> Any:
    """Makes plain data of a result: iterators become lists; raises TypeError for functions.

    BudgetExceeded when the result, written out in full, would be larger than the budget's
    size. Data that needs no change is returned as it is.
    """
    if type(value) in SCALARS:
        return value
    return _Settlement(budget).settle(value, 0)[0]


def _may_repeat(parts: list[ast.AST], source: Source) -> bool:
    shared = {source.subject, CONTEXT, *source.state_keys}
    for part in parts:
        match part:
            case ast.Lambda() | ast.BinOp(op=ast.Mult()):
                return True
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                if _comprehension_may_repeat(part, shared):
                    return True
    return sum(isinstance(part, ast.Name) for part in parts) > _MANY_NAMES


def _comprehension_may_repeat(node: Comprehension, shared: set[str]) -> bool:
    """Loops inside loops, or an element that does not come from the loop alone."""
    if len(node.generators) > 1:
        return True
    if any(isinstance(part, Comprehension) for part in parts_of(node)[1:]):
        return True
    return any(
        isinstance(part, ast.Name) and part.id in shared for part in parts_of(*elements_of(node))
    )


def _may_leak(parts: list[ast.AST]) -> bool:
    consumed: set[int] = set()
    for part in parts:
        consumed.update(id(child) for child in _consumed_by(part))
        if id(part) not in consumed and _is_internal(part):
            return True
    return False


def _is_internal(node: ast.AST) -> bool:
    """Whether a node gives an iterator, a function or a page."""
    match node:
        case ast.GeneratorExp():
            return True
        case ast.Name(id=name):
            return name in FUNCTIONS
        case ast.Attribute(attr=name):
            return name in _MEMBERS
        case ast.Call(func=ast.Name(id=name)):
            return name in _LAZY_FUNCTIONS or name in _OPAQUE_FUNCTIONS
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in _LAZY_METHODS
    return False


def _consumed_by(node: ast.AST) -> list[ast.expr]:
    """The children that cannot become part of the value of this node."""
    match node:
        case ast.comprehension(iter=child) | ast.Starred(value=child) | ast.Attribute(value=child):
            return [child]
        case ast.Compare(comparators=[child], ops=[ast.In() | ast.NotIn()]):
            return [child]
        case ast.keyword(arg="key", value=child):
            return [child]
        case ast.Call(func=ast.Attribute(attr="join") as function, args=arguments):
            return [function, *arguments]
        case ast.Call(func=ast.Name(id=name) as function, args=arguments):
            return [function, *_consumed_arguments(name, arguments)]
        case ast.Call(func=function):
            return [function]
    return []


def _consumed_arguments(name: str, arguments: list[ast.expr]) -> list[ast.expr]:
    match name, arguments:
        case "isinstance", [value, ast.Tuple(elts=types) as group]:
            return [value, group, *types]
        case "map", [ast.Name(id=mapper), *others] if mapper not in _PLAIN_MAPPERS:
            return others
        case (("isinstance" | "map" | "zip" | "filter"), _):
            return arguments
        case (("min" | "max"), [only]):
            return [only]
    return arguments[:1] if name in _CONSUMERS else []


class _Settlement:
    """Rebuilds only what has to change, and visits what is shared only once."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._known: dict[int, tuple[Any, int]] = {}
        self._alive: list[Any] = []  # ids stay unique as long as their objects live

    def settle(self, value: Any, depth: int) -> tuple[Any, int]:
        """The plain form of a value and its size once it is written out."""
        kind = type(value)
        if kind is str:
            return value, len(value)
        if kind in INTERNAL or kind in VIEWS or kind is range:
            return self.settle(self._as_list(value), depth)
        if kind not in (list, dict, tuple, set, frozenset):
            return _plain(value), _PART
        known = self._known.get(id(value))
        if known is None:
            if depth > MAX_NESTING:
                raise BudgetExceeded(f"its result is nested more than {MAX_NESTING} levels deep")
            settled, size = (
                self._settle_dict(value, depth)
                if kind is dict
                else (self._settle_items(value, depth))
            )
            if size > self._budget.size_limit:
                raise BudgetExceeded(f"its result is larger than {self._budget.size_limit:,} bytes")
            known = self._known[id(value)] = settled, size
            self._alive.append(value)
        return known

    def _as_list(self, value: Any) -> list[Any]:
        if type(value) is not Stream and type(value) in INTERNAL:
            raise TypeError(f"a {type_name(value)} is no value: call it")
        return collect(self._budget, value)

    def _settle_dict(self, value: dict[Any, Any], depth: int) -> tuple[Any, int]:
        size = _PART
        changes: dict[Any, Any] = {}
        for key, part in value.items():
            settled, length = (
                (part, _PART) if type(part) in _SMALL else (self.settle(part, depth + 1))
            )
            size += length + self._check_fixed(key, depth)
            if settled is not part:
                changes[key] = settled
        return ({**value, **changes} if changes else value), size

    def _settle_items(self, value: Any, depth: int) -> tuple[Any, int]:
        kind = type(value)
        size = _PART
        parts: list[Any] = []
        is_changed = False
        for part in value:
            if type(part) in _SMALL:
                settled, length = part, _PART
            elif kind in SETS:
                settled, length = part, self._check_fixed(part, depth)
            else:
                settled, length = self.settle(part, depth + 1)
            size += length
            is_changed = is_changed or settled is not part
            parts.append(settled)
        return (kind(parts) if is_changed else value), size

    def _check_fixed(self, part: Any, depth: int) -> int:
        """The size of a key or a member of a set, which cannot be exchanged."""
        if type(part) is str:
            return len(part)
        settled, size = self.settle(part, depth + 1)
        if settled is not part:
            raise TypeError(f"a {type_name(part)} is no value to be a key")
        return size


def _plain(value: Any) -> Any:
    if type(value) is Page:
        raise TypeError("a page is no value: use its get_text()")
    return value

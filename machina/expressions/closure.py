"""The shape of compiled code: closures over frames, and the builder that hands them out."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from machina.expressions.grammar import parts_of
from machina.expressions.source import Source

# A frame is [scope, budget, frame outside, variable, variable, …]. A comprehension or a lambda
# opens one of its own, so that lambdas and iterators see what Python would let them see.
Frame = list[Any]
SCOPE, BUDGET, OUTSIDE, FIRST_VARIABLE = 0, 1, 2, 3

Closure = Callable[[Frame], Any]

# What evaluating a node may allocate, in bytes; paid for wherever it is done repeatedly.
_WEIGHTS: dict[type[ast.AST], int] = {
    ast.Dict: 232, ast.List: 56, ast.Tuple: 40, ast.Set: 216, ast.Starred: 8, ast.Call: 64,
    ast.BinOp: 32, ast.Lambda: 128, ast.ListComp: 160, ast.SetComp: 400, ast.DictComp: 400,
    ast.GeneratorExp: 700, ast.JoinedStr: 56,
}  # fmt: skip


class Builder:
    """Turns the nodes of one scope into closures. Every node has passed the grammar."""

    __slots__ = ("_handlers", "_outside", "_slots", "source")

    def __init__(
        self,
        handlers: Mapping[type[ast.AST], Handler],
        source: Source,
        *,
        outside: Builder | None = None,
        variables: Iterable[str] = (),
    ) -> None:
        self.source = source
        self._handlers = handlers
        self._outside = outside
        self._slots = {
            name: FIRST_VARIABLE + position
            for position, name in enumerate(dict.fromkeys(variables))
        }

    def __call__(self, node: ast.expr) -> Closure:
        """The closure that evaluates a node in a frame of this scope."""
        return self._handlers[type(node)](node, self)

    def inside(self, variables: Iterable[str]) -> Builder:
        """A builder for the body of a comprehension or lambda with these variables."""
        return Builder(self._handlers, self.source, outside=self, variables=variables)

    @property
    def width(self) -> int:
        """How many variables a frame of this scope has."""
        return len(self._slots)

    def slot(self, name: str) -> int:
        """The place of a variable of this very scope in its frame."""
        return self._slots[name]

    def find(self, name: str) -> tuple[int, int] | None:
        """How many frames out a variable lives, and its place there; None for other names."""
        builder: Builder | None = self
        distance = 0
        while builder is not None:
            if name in builder._slots:
                return distance, builder._slots[name]
            builder = builder._outside
            distance += 1
        return None

    def is_free(self, node: ast.expr, name: str) -> bool:
        """Whether a node is this name, not taken by a variable."""
        return isinstance(node, ast.Name) and node.id == name and self.find(name) is None


Handler = Callable[[Any, Builder], Closure]


def cost_of(*nodes: ast.expr) -> int:
    """The steps that evaluating these nodes once takes."""
    return 1 + len(parts_of(*nodes))


def weight_of(*nodes: ast.expr) -> int:
    """The bytes that evaluating these nodes once may allocate, besides what it pays for itself."""
    weight = 16
    for part in parts_of(*nodes):
        weight += _WEIGHTS.get(type(part), 0)
        if isinstance(part, ast.Dict):
            weight += 40 * max(0, len(part.keys) - 5)
        elif isinstance(part, ast.List | ast.Tuple | ast.Set):
            weight += 8 * len(part.elts)
    return weight

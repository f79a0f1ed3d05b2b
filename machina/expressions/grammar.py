"""The allow-list of the language: what an author may write, checked before anything runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from machina.expressions.budget import MAX_INTEGER_BITS
from machina.expressions.functions import FUNCTIONS
from machina.expressions.source import Source

CONSTANT_NAMES = {"null": None, "true": True, "false": False}
CONTEXT = "context"

MAX_NODES = 10_000
MAX_DEPTH = 150
MAX_LOOPS = 8  # `for` clauses of one comprehension

_NODES = frozenset(
    {
        ast.Expression, ast.Constant, ast.Name,
        ast.Dict, ast.List, ast.Tuple, ast.Set, ast.Starred,
        ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension,
        ast.Call, ast.keyword, ast.Attribute, ast.Subscript, ast.Slice,
        ast.Lambda, ast.arguments, ast.arg, ast.IfExp, ast.JoinedStr, ast.FormattedValue,
        ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd,
        ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod,
        ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
        ast.Is, ast.IsNot, ast.In, ast.NotIn,
    }
)  # fmt: skip

_MARKS = frozenset({ast.Load, ast.Store})
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(slots=True)
class Findings:
    """What the check of one expression found."""

    unknown: str | None = None  # a name outside the language: the text is no expression
    refusal: str | None = None  # why the expression may not run


def check(tree: ast.Expression, source: Source) -> Findings:
    """Checks every node against the allow-list and every name against the known ones."""
    checker = _Checker(source)
    try:
        checker.visit(tree)
    except _Unknown as unknown:
        checker.findings.unknown = str(unknown)
    return checker.findings


def parts_of(*nodes: ast.AST) -> list[ast.AST]:
    """These nodes and all below them, parents first, without the marks for load and store."""
    parts = list(nodes)
    for node in parts:
        for field in node._fields:
            child = getattr(node, field, None)
            if isinstance(child, list):
                parts.extend(part for part in child if isinstance(part, ast.AST))
            elif isinstance(child, ast.AST) and type(child) not in _MARKS:
                parts.append(child)
    return parts


def elements_of(node: Comprehension) -> list[ast.expr]:
    """What a comprehension yields: its element, or its key and its value."""
    return [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]


def target_names(node: ast.expr) -> list[str]:
    """The names that the target of a loop binds."""
    return [name.id for name in parts_of(node) if isinstance(name, ast.Name)]


class _Unknown(Exception):
    """A free name that the language does not have; nothing else matters then."""


class _Variables:
    """The names that one lambda or comprehension binds, and those of them bound so far."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.bound: set[str] = set()


class _Checker:
    """Walks the tree once. A refusal is noted and the walk goes on, as an unknown name wins."""

    def __init__(self, source: Source) -> None:
        self.findings = Findings()
        self._source = source
        self._scopes: list[_Variables] = []
        self._nodes = 0
        self._depth = 0
        self._special: dict[type[ast.AST], Callable[..., None]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.Lambda: self._lambda,
            ast.ListComp: self._comprehension,
            ast.SetComp: self._comprehension,
            ast.DictComp: self._comprehension,
            ast.GeneratorExp: self._comprehension,
        }

    def visit(self, node: ast.AST) -> None:
        """Checks a node and all below it."""
        self._nodes += 1
        if self._depth >= MAX_DEPTH or self._nodes > MAX_NODES:
            self._refuse("it is too long or nested too deeply")
            return
        if type(node) not in _NODES:
            self._refuse(f"{type(node).__name__} is not part of the language")
        self._depth += 1
        self._special.get(type(node), self._children)(node)
        self._depth -= 1

    def _children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if type(child) not in _MARKS:
                self.visit(child)

    def _refuse(self, reason: str) -> None:
        if self.findings.refusal is None:
            self.findings.refusal = reason

    def _constant(self, node: ast.Constant) -> None:
        value = node.value
        if value is not None and type(value) not in (str, int, float, bool):
            self._refuse(f"a constant of type {type(value).__name__} is not part of the language")
        if type(value) is int and value.bit_length() > MAX_INTEGER_BITS:
            self._refuse("a number is too long")

    def _name(self, node: ast.Name) -> None:
        name = node.id
        if isinstance(node.ctx, ast.Store):
            raise _Unknown(name)  # loops bind their names elsewhere: this is an assignment
        if self._is_variable(name):
            return
        known = name in FUNCTIONS or name in CONSTANT_NAMES or name == CONTEXT
        if not known and name != self._source.subject and name not in self._source.state_keys:
            raise _Unknown(name)

    def _is_variable(self, name: str) -> bool:
        for variables in reversed(self._scopes):
            if name in variables.names:
                if name not in variables.bound:
                    self._refuse(f"{name!r} is used before it has a value")
                return True
        return False

    def _attribute(self, node: ast.Attribute) -> None:
        if node.attr.startswith("_") and node.attr != "__sub__":
            self._refuse(f"the attribute {node.attr!r} is not part of the language")
        self._children(node)

    def _call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "__import__":
            argument = node.args[0] if len(node.args) == 1 and not node.keywords else None
            if not (isinstance(argument, ast.Constant) and argument.value == "datetime"):
                self._refuse("only __import__('datetime') is part of the language")
        self._children(node)

    def _lambda(self, node: ast.Lambda) -> None:
        arguments = node.args
        if arguments.posonlyargs or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
            self._refuse("a lambda may only have plain parameters")
        for default in arguments.defaults:
            self.visit(default)
        self._open_scope(argument.arg for argument in arguments.args)
        self._scopes[-1].bound = self._scopes[-1].names
        self.visit(node.body)
        self._scopes.pop()

    def _comprehension(self, node: Comprehension) -> None:
        if len(node.generators) > MAX_LOOPS:
            self._refuse(f"a comprehension may have {MAX_LOOPS} loops at most")
        first = node.generators[0]
        self.visit(first.iter)  # belongs to the scope outside
        self._open_scope(name for clause in node.generators for name in target_names(clause.target))
        for clause in node.generators:
            if clause is not first:
                self.visit(clause.iter)
            self._clause(clause)
        for element in elements_of(node):
            self.visit(element)
        self._scopes.pop()

    def _clause(self, clause: ast.comprehension) -> None:
        if clause.is_async:
            self._refuse("async is not part of the language")
        if not _is_target(clause.target):
            self._refuse("a loop may only bind names")
        self._scopes[-1].bound.update(target_names(clause.target))
        for condition in clause.ifs:
            self.visit(condition)

    def _open_scope(self, names: Iterable[str]) -> None:
        variables = _Variables(names)
        if self._source.subject in variables.names or not variables.names.isdisjoint(
            self._source.state_keys
        ):
            self._refuse("`$` cannot be given another meaning")
        self._scopes.append(variables)


def _is_target(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List):
        return all(_is_target(element) for element in node.elts)
    return isinstance(node, ast.Name)

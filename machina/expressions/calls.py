"""Compiles calls: `$.get(…)`, methods of values, functions of the language, lambdas."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from machina.expressions.closure import BUDGET, SCOPE, Builder, Closure, Frame
from machina.expressions.displays import items_of
from machina.expressions.functions import FUNCTIONS
from machina.expressions.grammar import CONTEXT
from machina.expressions.methods import attribute_of, method_of
from machina.expressions.values import Builtin, check_key, invoke, iterate, type_name

# Calls something with the arguments of a call: (frame, callable, what comes before them).
_Apply = Callable[..., Any]


def call(node: ast.Call, build: Builder) -> Closure:
    """Any call; which kind it is can be seen from the function alone."""
    function = node.func
    subject = build.source.subject
    if isinstance(function, ast.Attribute):
        owner = function.value
        if function.attr == "get" and build.is_free(owner, subject):
            return _lookup(node, build, "get")
        if function.attr == "get" and _is_state(owner, build):
            return _lookup(node, build, "state")
        if _is_state(function, build):
            return _lookup(node, build, "state")
        return _method(node, build(owner), function.attr, build)
    if isinstance(function, ast.Name) and _is_function(function, build):
        return _function(node, FUNCTIONS[function.id], build)
    return _value(node, build(function), build)


def _is_state(node: ast.expr, build: Builder) -> bool:
    """`context` or `$.context`."""
    if isinstance(node, ast.Attribute):
        return node.attr == CONTEXT and build.is_free(node.value, build.source.subject)
    return build.is_free(node, CONTEXT)


def _is_function(node: ast.Name, build: Builder) -> bool:
    return node.id in FUNCTIONS and build.find(node.id) is None


def _lookup(node: ast.Call, build: Builder, where: str) -> Closure:
    """`$.get(key, default)` when `where` is "get", `context.get(key, default)` when "state"."""
    arguments = node.args
    is_plain = 1 <= len(arguments) <= 2 and not node.keywords
    if not is_plain or any(isinstance(argument, ast.Starred) for argument in arguments):
        return _any_lookup(_applied(node, build), where)
    key = build(arguments[0])
    default = build(arguments[1]) if len(arguments) == 2 else _nothing
    literal = arguments[0].value if isinstance(arguments[0], ast.Constant) else None
    if type(literal) is str and "$" not in literal and where == "get":
        return _subject_lookup(literal, default)

    def found(frame: Frame) -> Any:
        wanted = key(frame)
        check_key(frame[BUDGET], wanted, 0)
        return getattr(frame[SCOPE], where)(wanted, default(frame))

    return found


def _subject_lookup(key: str, default: Closure) -> Closure:
    """The most frequent expression of all: `$.get('key')`."""

    def found(frame: Frame) -> Any:
        otherwise = default(frame)  # evaluated even when it is not needed, as in Python
        scope = frame[SCOPE]
        subject = scope.subject
        if type(subject) is dict and key in subject:
            return subject[key]
        return scope.get(key, otherwise)

    return found


def _any_lookup(apply: _Apply, where: str) -> Closure:
    def found(frame: Frame) -> Any:
        def get(budget: Any, key: Any, default: Any = None, /) -> Any:
            check_key(budget, key, 0)
            return getattr(frame[SCOPE], where)(key, default)

        return apply(frame, get)

    return found


def _nothing(_: Frame) -> None:
    return None


def _function(node: ast.Call, builtin: Builtin, build: Builder) -> Closure:
    function = builtin.call
    if function is None:
        return _value(node, lambda frame: builtin, build)
    if len(node.args) == 1 and _is_plain(node):
        only = build(node.args[0])
        return lambda frame: function(frame[BUDGET], only(frame))
    apply = _applied(node, build)
    return lambda frame: apply(frame, function)


def _method(node: ast.Call, owner: Closure, name: str, build: Builder) -> Closure:
    if name == "get" and 1 <= len(node.args) <= 2 and _is_plain(node):
        return _dict_get(owner, [build(argument) for argument in node.args])
    apply = _applied(node, build)

    def called(frame: Frame) -> Any:
        value = owner(frame)
        if type(value) is Builtin:
            return apply(frame, _member(value, name))
        return apply(frame, method_of(value, name), value)

    return called


def _dict_get(owner: Closure, arguments: list[Closure]) -> Closure:
    """`value.get(key)`, which is nearly always a dict and a text."""
    key, default = arguments[0], arguments[1] if len(arguments) == 2 else _nothing

    def found(frame: Frame) -> Any:
        value = owner(frame)
        if type(value) is not dict:
            method_of(value, "get")  # raises: nothing else has a get
        wanted = key(frame)
        if type(wanted) is not str:
            check_key(frame[BUDGET], wanted, len(value))
        return value.get(wanted, default(frame))

    return found


def _member(namespace: Builtin, name: str) -> Callable[..., Any]:
    member = attribute_of(namespace, name)
    if type(member) is not Builtin or member.call is None:
        raise TypeError(f"'{type_name(member)}' object is not callable")
    return member.call


def _value(node: ast.Call, target: Closure, build: Builder) -> Closure:
    """Calls what an expression gives: a lambda, or a function that was passed around."""
    apply = _applied(node, build)

    def called(frame: Frame) -> Any:
        function = target(frame)

        def call_it(budget: Any, /, *values: Any, **named: Any) -> Any:
            return invoke(budget, function, *values, **named)

        return apply(frame, call_it)

    return called


def _is_plain(node: ast.Call) -> bool:
    return not node.keywords and not any(isinstance(part, ast.Starred) for part in node.args)


def _applied(node: ast.Call, build: Builder) -> _Apply:
    """Evaluates the arguments of a call and passes them on, after the budget."""
    items = items_of(node.args, build) if node.args else None
    if not node.keywords:
        if items is None:
            return lambda frame, function, *before: function(frame[BUDGET], *before)
        return lambda frame, function, *before: function(frame[BUDGET], *before, *items(frame))
    keywords = [(keyword.arg, build(keyword.value)) for keyword in node.keywords]

    def apply(frame: Frame, function: Callable[..., Any], *before: Any) -> Any:
        values = items(frame) if items else ()
        return function(frame[BUDGET], *before, *values, **_named(frame, keywords))

    return apply


def _named(frame: Frame, keywords: list[tuple[str | None, Closure]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in keywords:
        given = {name: value(frame)} if name else value(frame)
        if type(given) is not dict:
            raise TypeError(f"argument after ** must be a mapping, not '{type_name(given)}'")
        for key in iterate(frame[BUDGET], given):
            if type(key) is not str:
                raise TypeError("keywords must be strings")
            if key in named:
                raise TypeError(f"got multiple values for keyword argument '{key}'")
            named[key] = given[key]
    return named

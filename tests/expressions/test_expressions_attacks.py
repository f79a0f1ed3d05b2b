"""No attack in `attacks.txt` gets a value out of the evaluator, however it is wrapped."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machina.errors import ExpressionFailed
from machina.expressions import Limits, Scope, compile_expression, evaluate, is_true

ATTACKS = [
    line
    for line in (Path(__file__).parent / "attacks.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("# ")
]
WRAPPERS = {
    "bare": "{}",
    "comprehension": "[{} for i in [1, 2]]",
    "f-string": "f'''{{ {} }}'''",
    "lambda": "(lambda z: {})(1)",
    "dict key": "{{{}: 1}}",
    "dict value": "{{'k': {}}}",
    "condition": "({0}) if ({0}) else ({0})",
    "generator": "next(({}) for i in [1])",
    "default": "$.get('missing', {})",
    "spread": "[*[{}]]",
}
# Tight, so that the bombs go off early: what matters is that a limit stops them.
LIMITS = Limits(steps=20_000, size=2**18, seconds=0.5)
STATE: dict[str, Any] = {
    "who": "Ada",
    "ids": ["a", "b"],
    "doc": {"a": 1},
    "big": list(range(1000)),
    "wide": {str(number): number for number in range(1000)},
    "long": "ab" * 5000,
}


@pytest.fixture
def scope() -> Iterator[Scope]:
    state = copy.deepcopy(STATE)
    yield Scope(state, state, secrets={"API_KEY": "canary"}.get)
    assert state == STATE


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) == len(set(ATTACKS)) >= 205


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_no_attack_gives_a_value_when_wrapped(wrapper: str, scope: Scope) -> None:
    successful = [source for source in map(wrapper.format, ATTACKS) if not is_held(source, scope)]
    assert successful == []


def test_no_attack_gives_a_value_when_it_is_a_condition_or_stands_in_a_definition(
    scope: Scope,
) -> None:
    for source in ATTACKS:
        for attempt in (is_true, evaluate):
            try:
                value = attempt([source] if attempt is evaluate else source, scope, limits=LIMITS)
            except ExpressionFailed:
                continue
            assert compile_expression(source).is_literal
            assert value in (True, [source])


def test_no_attack_gives_a_value_when_it_is_a_key(scope: Scope) -> None:
    for source in ATTACKS:
        key = f"{{ {source} }}-{{$.get('who')}}"
        try:
            value = evaluate({key: 1}, scope, limits=LIMITS)
        except ExpressionFailed:
            continue
        assert value == {key: 1}


def test_attacks_stay_text_when_they_come_from_data(scope: Scope) -> None:
    for source in ATTACKS:
        data = {"text": source, "list": [source], source: source}
        with_data = Scope(data, data)
        assert evaluate("$.get('text')", with_data) == source
        assert evaluate("f\"{$.get('text')}\"", with_data) == source
        assert evaluate("'$.(text)'", with_data) == source
        assert evaluate("[*$.get('list'), $.(text)]", with_data) == [source, source]
        assert evaluate("{$.get('text'): 1}", with_data) == {source: 1}
        assert evaluate("$", with_data) == data
        assert evaluate({"{$.get('text')}": "$.get('text')"}, with_data) == {source: source}
        assert evaluate("$.get($.get('text'))", with_data) == source


@pytest.mark.parametrize(
    "text", ["{0.__class__}", "%(a)s", "{{}}", "$.get('who')", "${who}", "$.who", "$who"]
)
def test_text_stays_as_it_is_when_it_only_looks_like_a_trick(text: str, scope: Scope) -> None:
    assert evaluate(repr(text), scope) == text


def is_held(source: str, scope: Scope) -> bool:
    """Whether an attack was refused, or taken for plain text and left alone."""
    expression = compile_expression(source)
    try:
        value = expression.evaluate(scope, where="attack", limits=LIMITS)
    except ExpressionFailed as error:
        return "canary" not in error.message
    return expression.is_literal and value == source

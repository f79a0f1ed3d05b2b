"""What is too much is refused before it is done, and no expression can prevent that."""

from __future__ import annotations

from typing import Any

import pytest

from machina.errors import BudgetExceeded, ExpressionFailed
from machina.expressions import DEFAULT_LIMITS, Limits, Scope, compile_expression, evaluate

SMALL = Limits(steps=10_000, size=100_000, depth=10, seconds=5)
PATIENT = Limits(seconds=60)  # on a slow machine the clock must not come first
STATE: dict[str, Any] = {"big": list(range(1000)), "text": "ab" * 20_000}
SCOPE = Scope(STATE, STATE)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("'a' * 10000000000", "bytes"),
        ("[0] * 10000000000", "bytes"),
        ("[x for x in range(10000000000)]", "steps"),
        ("list(range(10000000000))", "bytes"),
        ("round(1, -1000000000)", "round"),
        ("f'{1:1000000000}'", "wider"),
        ("int('9' * 5000)", "digits"),
        ("(lambda f: f(f))(lambda f: f(f))", "deep"),
        ("(lambda f: f(f, 30, 3))(lambda f, n, a: a if n == 0 else f(f, n - 1, a * a))", "bits"),
        ("(lambda f: f(f, 40, [1]))(lambda f, n, a: a if n == 0 else f(f, n - 1, [a, a]))",
         "result"),
        ("(lambda f: f(f, 20, []))(lambda f, n, g: g if n == 0 else f(f, n - 1,"
         " [[[[[[[[[[[[[[[[g]]]]]]]]]]]]]]]]))", "levels"),
        ("[$.get('text') for i in range(10000)]", "result"),
        ("json.loads('[' * 100000)", "deeply"),
        ("{i * 2305843009213693951 for i in range(10000)}", "steps"),
        ("(lambda f: f(f, 40, [1]))(lambda f, n, g: list(g) if n == 0 else f(f, n - 1,"
         " map(str, g)))", "iterators"),
        ("bs4('x' * 1100000)", "page"),
        ("json.loads('x' * 2100000)", "JSON"),
        ("datetime.fromisoformat('2' * 300)", "date"),
    ],
)  # fmt: skip
def test_bomb_is_stopped_by_the_ordinary_limits(source: str, reason: str) -> None:
    with pytest.raises(BudgetExceeded, match=reason) as caught:
        evaluate(source, SCOPE, where="test", limits=PATIENT)
    assert caught.value.code == "sandbox_limit"
    assert "in test failed" in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "next((x for x in range(10000000000) if x < 0), 'default')",
        "any(x < 0 for x in range(10000000000)) or True",
        "max((x for x in range(10000000000) if x < 0), default=1)",
        "$.get('x', 'a' * 10000000000)",
        "sorted([1, 2], key=lambda x: 'a' * 10000000000)",
        "[1 for x in [1] if 'a' * 10000000000]",
    ],
)
def test_blown_budget_cannot_be_caught_by_the_expression(source: str) -> None:
    with pytest.raises(BudgetExceeded):
        evaluate(source, SCOPE, limits=SMALL)


def test_time_is_a_limit_of_its_own() -> None:
    limits = Limits(seconds=0.05)
    with pytest.raises(BudgetExceeded, match="longer than"):
        evaluate("[1 for a in range(900) for b in range(900) if a == b]", SCOPE, limits=limits)


def test_hostile_page_is_stopped_by_the_clock() -> None:
    page = Scope({"html": "<a " * 20_000}, {})
    with pytest.raises(BudgetExceeded, match="longer than"):
        evaluate("bs4($.get('html')).get_text()", page, limits=Limits(seconds=0.1))


def test_limits_are_for_one_evaluation() -> None:
    expression = compile_expression("'a' * 60000")
    for _ in range(3):
        assert len(expression.evaluate(SCOPE, limits=SMALL)) == 60_000
    with pytest.raises(BudgetExceeded):
        evaluate("'a' * 60000 + 'b'", SCOPE, limits=SMALL)


@pytest.mark.parametrize(
    "source",
    [
        "[i for i in $.get('big') if i not in [1, 2, 3]]",
        "[{**d, 'k': 1} for d in $.get('docs')]",
        "{d.get('id'): d for d in $.get('docs')}",
        "[d for d in $.get('docs') if not any(o.get('id') == d.get('id') for o in $.get('docs'))]",
        "sorted($.get('docs'), key=lambda d: d.get('name'), reverse=True)[:10]",
        "', '.join(d.get('name') for d in $.get('docs'))",
        "sum(len(d.get('name')) for d in $.get('docs'))",
    ],
)
def test_ordinary_work_stays_within_the_limits_when_there_is_much_data(source: str) -> None:
    docs = [{"id": number, "name": f"name {number}", "n": [number] * 5} for number in range(300)]
    state = {"docs": docs, "big": list(range(10_000))}
    evaluate(source, Scope(state, state), limits=PATIENT)


def test_large_data_passes_through_when_it_is_only_picked_out() -> None:
    text = "x" * (DEFAULT_LIMITS.size + 1)
    scope = Scope({"text": text, "list": [text]}, {})
    assert evaluate("$.get('text')", scope) is text
    assert evaluate("[t for t in $.get('list')][0]", scope) is text
    assert evaluate("{'t': $.get('text')}", scope) == {"t": text}


def test_data_that_holds_itself_is_refused_when_it_has_to_be_walked() -> None:
    loop: list[Any] = []
    loop.append(loop)
    scope = Scope({"loop": loop}, {})
    for source in ("str($.get('loop'))", "$.get('loop') == [[]]", "[$.get('loop'), zip()]"):
        with pytest.raises(BudgetExceeded):
            evaluate(source, scope)


def test_budget_is_an_expression_error_that_can_be_told_apart() -> None:
    assert issubclass(BudgetExceeded, ExpressionFailed)
    with pytest.raises(ExpressionFailed) as caught:
        evaluate("1 / 0", SCOPE)
    assert not isinstance(caught.value, BudgetExceeded)
    assert caught.value.code == "expression_error"

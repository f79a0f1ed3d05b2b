"""Errors say which expression failed, where it stands and why, and repeat no data."""

from __future__ import annotations

import pytest

from machina.errors import ExpressionFailed
from machina.expressions import Scope, compile_expression, evaluate, is_true

SECRET = "sk-do-not-repeat-me"
SCOPE = Scope({"key": SECRET, "none": None}, {})


def failure_of(source: str) -> ExpressionFailed:
    with pytest.raises(ExpressionFailed) as caught:
        evaluate(source, SCOPE, where="workflow 'w', task 't', input 'i'")
    return caught.value


def test_error_names_the_expression_the_place_and_the_reason() -> None:
    error = failure_of("len($.get('none'))")
    assert error.message == (
        "Expression `len($.get('none'))` in workflow 'w', task 't', input 'i' failed:"
        " TypeError: object of type 'NoneType' has no len()"
    )
    assert error.details == {
        "expression": "len($.get('none'))",
        "where": "workflow 'w', task 't', input 'i'",
        "error": "TypeError",
    }
    assert type(error.__cause__) is TypeError


def test_error_names_the_leaf_when_a_container_is_evaluated() -> None:
    with pytest.raises(ExpressionFailed, match=r"in inputs\.a\[1\]\.b failed"):
        evaluate({"a": ["1", {"b": "1 / 0"}]}, SCOPE, where="inputs")
    with pytest.raises(ExpressionFailed, match="in inputs key failed"):
        evaluate({"{$.get('none').x}": "1"}, SCOPE, where="inputs")


def test_expression_is_cut_and_stays_on_one_line_when_it_is_long() -> None:
    error = failure_of("[\n  1 / 0,\n" + "  'x',\n" * 200 + "]")
    assert error.message.startswith("Expression `[ 1 / 0, 'x', 'x',")
    assert "\n" not in error.message
    assert len(error.message) < 350


@pytest.mark.parametrize(
    "source",
    [
        "int($.get('key'))", "float($.get('key'))", "{'a': 1}[$.get('key')]",
        "datetime.fromisoformat($.get('key'))", "datetime.strptime($.get('key'), '%Y')",
        "'abc'.index($.get('key'))", "json.loads($.get('key'))", "$.get('key').nothing",
        "$.get('key') + 1", "f'{1:{$.get(\"key\")}}'", "[1].index($.get('key'))",
        "$.get('key')[99]", "timedelta($.get('key'))", "len(1, $.get('key'))",
    ],
)  # fmt: skip
def test_error_does_not_repeat_data(source: str) -> None:
    assert SECRET not in failure_of(source).message
    assert SECRET not in str(failure_of(source).details)


def test_refused_code_says_what_is_not_allowed() -> None:
    assert (
        "the attribute '__class__' is not part of the language"
        in failure_of("$.get('key').__class__").message
    )
    assert "Pow is not part of the language" in failure_of("2 ** 3").message
    assert compile_expression("2 ** 3").is_suspect


def test_place_may_be_unknown() -> None:
    with pytest.raises(ExpressionFailed, match=r"^Expression `1 / 0` failed: ZeroDivisionError"):
        evaluate("1 / 0", SCOPE)


def test_error_of_the_secret_store_is_an_expression_error() -> None:
    def broken(name: str) -> str:
        raise OSError(name)

    with pytest.raises(ExpressionFailed, match=r"failed: OSError$"):
        evaluate("$A_CONTEXT_VARIABLE_B", Scope(None, {}, secrets=broken))


def test_condition_names_its_place_when_it_fails() -> None:
    with pytest.raises(ExpressionFailed, match="in task 't' failed"):
        is_true("1 / 0", SCOPE, where="task 't'")

"""`docs/errors.md` has every code that an error can carry, with its meaning and its remedy."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
LINE = re.compile(r"\| `([a-z_]+)` \|(.*)\|")
CODE = re.compile(r"[a-z]+(?:_[a-z]+)*")


@functools.cache
def codes_in_use() -> dict[str, str]:
    """Every code, and a file that uses it."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "machina").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for code in _codes_of(tree):
            if CODE.fullmatch(code):
                found.setdefault(code, str(path.relative_to(ROOT)))
    return found


def _codes_of(tree: ast.Module) -> Iterator[str]:
    named = list(_assigned(tree))
    yield from (word for in_class, word in named if in_class)
    words = [word for in_class, word in named if not in_class]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from _values_of(keyword.value, words)
        if isinstance(node, ast.Constant) and str(node.value).startswith("provider_"):
            yield str(node.value)


def _values_of(value: ast.expr, words: list[str]) -> Iterator[str]:
    """What the keyword `code` may be: a text, one of two, or a prefix before a word of the file."""
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=other):
            yield from _values_of(body, words)
            yield from _values_of(other, words)
        case ast.BoolOp(values=values):
            for part in values:
                yield from _values_of(part, words)
        case ast.JoinedStr(values=[ast.Constant(value=str(prefix)), ast.FormattedValue()]):
            yield from (prefix + word for word in words)
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, default]):
            yield from _values_of(default, words)


def _assigned(tree: ast.AST, in_class: bool = False) -> Iterator[tuple[bool, str]]:
    """The texts that are given to the name `code`, and whether a class gives them."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Assign(targets=[target], value=value):
                yield from ((in_class, word) for word in _paired(target, value))
            case ast.AnnAssign(target=ast.Name(id="code"), value=ast.Constant(value=str(word))):
                yield in_class, word
            case ast.ClassDef():
                yield from _assigned(node, in_class=True)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _assigned(node)
            case _:
                yield from _assigned(node, in_class)


def _paired(target: ast.expr, value: ast.expr) -> Iterator[str]:
    match target, value:
        case ast.Name(id="code"), ast.Constant(value=str(word)):
            yield word
        case ast.Tuple(elts=names), ast.Tuple(elts=values):
            for name, part in zip(names, values, strict=False):
                yield from _paired(name, part)


def documented() -> dict[str, list[str]]:
    """The cells after the code of every line of the page's tables."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        match = LINE.fullmatch(line)
        if match:
            assert match[1] not in found, f"{match[1]} stands on the page twice"
            found[match[1]] = [cell.strip() for cell in match[2].split("|")]
    return found


def test_every_code_is_documented() -> None:
    page = documented()
    missing = {code: path for code, path in codes_in_use().items() if code not in page}
    assert missing == {}


def test_every_documented_code_exists() -> None:
    by_hand = {"method_not_allowed", "cancelled"}  # of the framework; of a run without an error
    assert documented().keys() <= codes_in_use().keys() | by_hand


def test_every_code_has_a_meaning_and_a_remedy() -> None:
    for code, (meaning, remedy) in documented().items():
        assert meaning.endswith("."), code
        assert remedy.endswith("."), code


def test_the_codes_of_the_contract_are_there() -> None:
    contract = {"connector_not_found", "connector_failed", "package_missing", "secret_missing"} | {
        *("expression_error", "definition_missing", "task_type_unknown", "sandbox_limit"),
        *("model_error", "timeout", "queue_timeout", "attempts_exhausted", "internal_error"),
    }
    assert contract <= documented().keys()


def test_the_tree_on_the_page_has_every_class_of_errors() -> None:
    tree = ast.parse((ROOT / "machina" / "errors.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    drawn = set(re.findall(r"[├└]── (\w+)", PAGE.read_text())) | {"MachinaError"}
    assert drawn == classes

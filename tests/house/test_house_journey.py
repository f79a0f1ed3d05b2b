"""The page for the night shift names files and functions; each must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "journey.md").read_text()


def test_every_file_named_on_the_journey_exists() -> None:
    named = set(re.findall(r"`((?:machina|docs|tests)/[\w/.-]+\.\w+)", PAGE))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_function_named_on_the_journey_exists() -> None:
    named = set(re.findall(r"`(machina/[\w/]+\.py)::([\w.]+)`", PAGE))
    assert named
    missing = {f"{file}::{name}" for file, name in named if name not in _definitions(ROOT / file)}
    assert missing == set()


def _definitions(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{child.name}")
    return found

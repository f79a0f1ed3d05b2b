"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "machina").rglob("*.py"))
MAX_LINES = 300
MAGNETS = {"utils", "helpers", "common", "core", "service", "services", "manager"}
PUBLIC_REGISTRY = "https://pypi.org/simple"
PUBLIC_FILES = "https://files.pythonhosted.org/packages/"


def test_no_source_file_is_longer_than_a_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in SOURCES
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert long == {}


def test_no_module_has_a_name_that_lets_everything_in() -> None:
    names = {part for path in SOURCES for part in (path.stem, *path.relative_to(ROOT).parts)}
    assert names & MAGNETS == set()


def test_every_module_opens_with_a_sentence_that_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if not re.match(r'(?:#![^\n]*\n)?r?"""\S', path.read_text())
    ]
    assert silent == []


def test_the_lock_names_only_the_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    strange = []
    for package in lock["package"]:
        source = package["source"]
        if source != {"editable": "."} and source != {"registry": PUBLIC_REGISTRY}:
            strange.append(source)
        files = [package[key] for key in ("sdist",) if key in package] + package.get("wheels", [])
        strange += [file["url"] for file in files if not file["url"].startswith(PUBLIC_FILES)]
    assert strange == []


def test_every_suppressed_warning_gives_its_reason() -> None:
    silenced = re.compile(r"# (?:noqa|type: ignore)(?P<rest>[^\n]*)")
    bare = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = silenced.search(line)
            if match and not re.match(r"(?:: [A-Z0-9, ]+|\[[a-z, -]+\])\s+(?:#|\S)", match["rest"]):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []


def test_decisions_are_numbered_without_a_gap_or_a_twin() -> None:
    numbers = [int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert sorted(numbers) == list(range(len(numbers)))

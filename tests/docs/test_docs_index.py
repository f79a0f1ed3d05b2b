"""`docs/index.md` leads to every page, and README's demo is the one in the repository."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_index_leads_to_every_page_and_nowhere_else() -> None:
    linked = set(re.findall(r"\]\(([^)]+)\)", (DOCS / "index.md").read_text()))
    pages = {page.name for page in DOCS.iterdir() if page.suffix in (".md", ".json")}
    assert linked == pages - {"index.md"} | {"decisions/"}


def test_every_page_that_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"\]\(((?:docs|templates)/[^)]+)\)", text)
    named += re.findall(r"install (templates/\S+)", text)
    assert [place for place in named if not (ROOT / place).exists()] == []
    assert "templates/demo-chat" in named

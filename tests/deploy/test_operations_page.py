"""docs/operations.md: the names it uses exist, and README leads to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from machina import errors
from machina.settings import Settings
from machina.store.embedded import FILE_NAME
from tests.deploy.page_commands import PAGE
from tests.deploy.production import ROOT
from tests.deploy.variables import GUIDE, unknown_variables

SOURCES: Final = sorted((ROOT / "machina").rglob("*.py"))


def page() -> str:
    return PAGE.read_text()


def anchors() -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", page())
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_setting_it_names_exists() -> None:
    assert unknown_variables(page()) == set()


def test_its_environment_is_the_guides_ten_and_can_be_used_as_it_is(tmp_path: Path) -> None:
    (block,) = re.findall(r"<!-- environment -->\n```sh\n(.*?)```", page(), re.DOTALL)
    assert re.findall(r"(?m)^(\w+)=", block) == list(GUIDE)
    (tmp_path / ".env").write_text(block)
    settings = Settings(_env_file=tmp_path / ".env")
    assert (settings.gunicorn_workers, settings.schedulers) == (4, True)
    assert settings.redis_pubsub_url == "redis://localhost:6379/1"


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page()):
        path, _, anchor = target.partition("#")
        if path:
            assert (PAGE.parent / path).exists(), target
        else:
            assert anchor in anchors(), target


def test_every_error_code_it_explains_exists() -> None:
    (table,) = re.findall(r"(?s)\| Code \| Cause .*?\n\n", page())
    codes = re.findall(r"(?m)^\| `([a-z_]+)` \|", table)
    assert len(codes) >= 7
    known = {thing.code for thing in vars(errors).values() if hasattr(thing, "code")}
    sources = "".join(path.read_text() for path in SOURCES)
    assert [code for code in codes if code not in known and f'"{code}"' not in sources] == []


@pytest.mark.parametrize("event", ["worker.started", "worker.buried", "loop.blocked"])
def test_the_log_lines_it_tells_to_look_for_are_written(event: str) -> None:
    assert f"`{event}`" in page()
    assert any(f'"{event}"' in path.read_text() for path in SOURCES)


def test_the_file_it_backs_up_is_the_one_that_is_written() -> None:
    assert f"/{FILE_NAME}" in page()


def test_readme_leads_to_it() -> None:
    assert "(docs/operations.md)" in (ROOT / "README.md").read_text()

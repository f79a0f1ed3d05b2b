"""An installation that is killed: what was there stays whole, and the next one finishes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from machina.settings import load_settings
from machina.store import open_store
from tests.journeys.harness import bare_environment

COUNT = 400
NAMES = [f"step-{number:03}" for number in range(COUNT)]


def write_bundle(folder: Path, version: str) -> None:
    folder.mkdir(exist_ok=True)
    entries = []
    for name in NAMES:
        (folder / f"{name}.yml").write_text(
            f"workflow:\n  name: {name}\n  description: {version}\n  tasks: []\n"
            f"  outputs:\n    version: \"'{version}'\"\n"
        )
        entries.append(f"  - {{type: workflow, path: {name}.yml}}\n")
    (folder / "_install.yml").write_text("datasets:\n" + "".join(entries))


def install(folder: Path, data_dir: Path) -> subprocess.Popen[bytes]:
    command = ("-m", "machina", "templates", "install", str(folder), "--data-dir", str(data_dir))
    return subprocess.Popen(
        [sys.executable, *command], env=bare_environment(), stdout=subprocess.DEVNULL
    )


def versions(data_dir: Path) -> list[tuple[str, str]]:
    """Description and output of every workflow: both are of one version when it is whole."""
    settings = load_settings(data_dir=data_dir)

    async def read() -> list[dict[str, Any]]:
        async with open_store(settings) as store:
            rows, _ = await store.definitions.search("default", "workflow", {}, limit=COUNT)
        return rows

    rows = asyncio.run(read())
    return [(row["description"], row["outputs"]["version"].strip("'")) for row in rows]


@pytest.mark.timeout(60)
def test_every_definition_is_old_or_new_when_an_installation_is_killed(tmp_path: Path) -> None:
    folder, data_dir = tmp_path / "bundle", tmp_path / "data"
    write_bundle(folder, "old")
    assert install(folder, data_dir).wait() == 0
    write_bundle(folder, "new")

    killed = install(folder, data_dir)
    while ("new", "new") not in versions(data_dir):
        assert killed.poll() is None
    killed.kill()
    assert killed.wait() == -9

    left = versions(data_dir)
    assert len(left) == COUNT
    assert set(left) == {("old", "old"), ("new", "new")}

    assert install(folder, data_dir).wait() == 0
    assert versions(data_dir) == [("new", "new")] * COUNT

"""start-prod.sh: which program it finds, what it hands on, what it says when there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from machina import __version__
from tests.deploy.production import BIN, ROOT
from tests.deploy.variables import unknown_variables

SCRIPT: Final = ROOT / "start-prod.sh"
NEEDED: Final = ("bash", "cat", "dirname", "env")


class Place:
    """A directory with the script and a PATH on which only what the script needs is found."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin = home / "bin"
        self.bin.mkdir()
        shutil.copy(SCRIPT, home)
        for name in NEEDED:
            found = shutil.which(name)
            assert found is not None
            (self.bin / name).symlink_to(found)

    def add_program(self, name: str, line: str) -> None:
        program = self.bin / name
        program.write_text(f"#!/usr/bin/env bash\n{line}\n")
        program.chmod(0o755)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.home / "start-prod.sh", *arguments],
            cwd="/",
            env={"PATH": str(self.bin)} | environ,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("script", ["start-prod.sh", ".ci/run"])
def test_shellcheck_finds_nothing(script: str) -> None:
    done = subprocess.run([BIN / "shellcheck", ROOT / script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_can_be_executed_and_names_only_settings_that_exist() -> None:
    assert os.access(SCRIPT, os.X_OK)
    assert unknown_variables(SCRIPT.read_text()) == set()


def test_the_environment_beside_it_comes_first(place: Place) -> None:
    (place.home / ".venv").symlink_to(sys.prefix)
    place.add_program("machina-server", "echo the one on PATH")
    assert place.run("--version").stdout.strip() == f"machina-server {__version__}"


def test_then_the_one_on_path(place: Place) -> None:
    (place.bin / "machina-server").symlink_to(BIN / "machina-server")
    place.add_program("python3", "exit 1")
    place.add_program("uv", "echo uv")
    assert place.run("--version").stdout.strip() == f"machina-server {__version__}"


def test_then_this_checkout_with_the_packages_of_pip(place: Place) -> None:
    (place.home / "machina").symlink_to(ROOT / "machina")
    place.add_program("python3", f'exec {sys.executable} "$@"')
    place.add_program("uv", "echo uv")
    assert place.run("--version").stdout.strip() == f"machina-server {__version__}"


def test_then_uv_with_the_frozen_lock_and_no_development_tools(place: Place) -> None:
    place.add_program("uv", 'echo uv "$@"')
    assert place.run().stdout == "uv run --frozen --no-dev machina-server api\n"
    done = place.run("worker", "--queues", "streaming_priority")
    assert done.stdout.endswith("machina-server worker --queues streaming_priority\n")


def test_python_without_the_packages_is_passed_over(place: Place) -> None:
    place.add_program("python3", "exit 1")
    place.add_program("uv", 'echo uv "$@"')
    assert place.run().stdout.startswith("uv run ")


def test_it_says_how_to_install_when_there_is_nothing(place: Place) -> None:
    done = place.run()
    assert (done.returncode, done.stdout) == (127, "")
    assert "machina-server is not installed" in done.stderr
    assert "uv sync --frozen --no-dev" in done.stderr
    assert "pip install -r requirements.txt" in done.stderr


def test_it_means_production_unless_the_environment_says_otherwise(place: Place) -> None:
    place.add_program("machina-server", 'echo "$MACHINA_ENVIRONMENT"')
    assert place.run().stdout == "production\n"
    assert place.run(MACHINA_ENVIRONMENT="dev").stdout == "dev\n"


def test_it_works_in_its_own_directory_and_executes_nothing_of_the_env_file(place: Place) -> None:
    (place.home / ".env").write_text("REDIS_URL=redis://localhost $(touch executed)\n")
    place.add_program("machina-server", 'pwd; echo "${REDIS_URL-unset}"')
    assert place.run().stdout == f"{place.home}\nunset\n"
    assert not (place.home / "executed").exists()

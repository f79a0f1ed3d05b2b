"""requirements.txt, for those who install with pip, is what the lock says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Final

from tests.deploy.production import ROOT

FILE: Final = ROOT / "requirements.txt"


def split() -> tuple[str, str]:
    """The comment at its head, and the rest."""
    head = "".join(re.findall(r"(?m)\A(?:#.*\n)+", FILE.read_text()))
    return head, FILE.read_text().removeprefix(head)


def test_it_is_what_the_command_in_its_head_makes_of_the_lock() -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv is not None, "uv is missing"
    head, rest = split()
    (command,) = re.findall(r"(?m)^#\s+uv (export .*)$", head)
    done = subprocess.run(
        [uv, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert rest == done.stdout, f"out of step with uv.lock; below its head put: uv {command}"


def test_every_package_is_pinned_and_every_file_is_known_by_its_hash() -> None:
    _, rest = split()
    packages = re.split(r"(?m)^(?=\S)", rest)[1:]
    assert len(packages) > 30
    for package in packages:
        assert re.match(r"[a-z0-9.-]+==\S+", package), package
        assert "--hash=sha256:" in package


def test_it_brings_no_development_tools() -> None:
    _, rest = split()
    assert not {"pytest", "ruff", "mypy"} & set(re.findall(r"(?m)^([a-z0-9.-]+)==", rest))

"""The committed OpenAPI document is the one the server serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_committed_document_is_what_the_command_prints() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "machina", "openapi"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout

    committed = (ROOT / "docs" / "openapi.json").read_text()
    assert json.loads(printed) == json.loads(committed), "run `make docs` and commit the result"

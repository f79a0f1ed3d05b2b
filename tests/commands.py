"""Runs commands of `machina-server` in this process; the fixtures `run` are made of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from machina.cli import main
from machina.settings import Settings


class Said(NamedTuple):
    """What a command left behind."""

    code: object
    out: str
    err: str


class Terminal(io.StringIO):
    """Standard input with somebody before it."""

    def isatty(self) -> bool:
        return True


Run = Callable[..., Said]
"""Arguments of the command; `given` is its standard input, `terminal` says whether one is there."""


def commands_in(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *group: str,
) -> Run:
    """Runs `machina-server` with `group` before the arguments, in `place`, without any setting."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)
    monkeypatch.chdir(place)
    # `main` hides the package from its own process; here others may want it.
    monkeypatch.setitem(sys.modules, "rich", sys.modules.get("rich"))

    def run(*arguments: str, given: str = "", terminal: bool = False) -> Said:
        monkeypatch.setattr(sys, "argv", ["machina-server", *group, *arguments])
        monkeypatch.setattr(sys, "stdin", Terminal() if terminal else io.StringIO(given))
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(ended.value.code, *capsys.readouterr())

    return run

"""The interpreter that runs scripts: where its files lie, and which process it starts as."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machina.errors import SettingsInvalid

CHILD: Final = Path(__file__).parent / "child"
"""What runs in the process of a script: a package that needs nothing of this server."""
_PROBE_SECONDS: Final = 20
_OLDEST: Final = (3, 9)
_PROBE: Final = (
    # Leaves our modules compiled, where that place can be written: children start faster.
    "import sys; sys.path.insert(0, sys.argv[1]); import child.main, child.dialing; "
    "import json, os, sys; print(json.dumps({'version': sys.version_info[:3], 'prefixes': "
    "[sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, "
    "os.path.dirname(os.path.realpath(sys.executable))]}))"
)
_START: Final = (
    "import sys; sys.path.insert(0, {parent!r}); import child.main as main\n"
    "del sys.path[0]\n"
    "for name in [n for n in sys.modules if n.partition('.')[0] == 'child']:\n"
    "    del sys.modules[name]\n"
    "import os\n"
    "try: main.main()\n"
    "finally: os._exit(0)"
)
"""Leaves no trace of our package: a script may have a module called `child` itself."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter that was asked about itself."""

    path: Path
    version: tuple[int, int, int]
    directories: tuple[Path, ...]
    """Where its own files and its packages lie."""

    @property
    def command(self) -> tuple[str, ...]:
        """Starts a child that waits for its plan: no variables, no user site, no current folder."""
        return (str(self.path), "-I", "-B", "-c", _START.format(parent=str(CHILD.parent)))


def find_interpreter(configured: Path | None) -> Interpreter:
    """The interpreter of the settings, by default our own. Blocking: starts it once.

    Raises:
        SettingsInvalid: it is not there, is no Python, or is too old.
    """
    path = Path(sys.executable) if configured is None else configured.absolute()
    try:
        answer = subprocess.run(  # noqa: S603  # the operator's own choice
            [str(path), "-I", "-c", _PROBE, str(CHILD.parent)],
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=True,
            env={},
            stdin=subprocess.DEVNULL,
        )
        told = json.loads(answer.stdout)
        version = (int(told["version"][0]), int(told["version"][1]), int(told["version"][2]))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
        raise SettingsInvalid(
            f"MACHINA_SCRIPT_PYTHON={path}: it cannot be started as a Python interpreter "
            f"({type(error).__name__}); name another or unset it."
        ) from error
    if version[:2] < _OLDEST:
        raise SettingsInvalid(
            f"MACHINA_SCRIPT_PYTHON={path}: this is Python {version[0]}.{version[1]}; scripts "
            f"need {_OLDEST[0]}.{_OLDEST[1]} or newer."
        )
    return Interpreter(path, version, _outermost(Path(name) for name in told["prefixes"]))


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return tuple(kept)

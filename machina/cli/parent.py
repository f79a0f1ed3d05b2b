"""Ties a process to whoever has to end it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

from machina.cli.supervisor import PARENT_VARIABLE, die_with_parent

_RUNNERS: Final = ("uv", "uvx")


def follow_parent(death_signal: signal.Signals = signal.SIGTERM) -> None:
    """Has this process end with its supervisor, or with the `uv run` that started it.

    `uv run` passes signals on, which it cannot do when it is killed; what it ran would go on
    without anybody who knows of it. Any other parent may go its way, as a shell after `nohup`.

    Args:
        death_signal: What the process gets when its supervisor is gone.
    """
    parent = os.getppid()
    if os.environ.get(PARENT_VARIABLE):
        die_with_parent(death_signal=death_signal)
    elif _name_of(parent) in _RUNNERS:
        die_with_parent(parent)


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # no such file system, or no such process any more
        return ""

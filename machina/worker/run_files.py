"""Whether the files that a run's scripts wrote are on this host, so that a new attempt has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from machina.ids import RunId

FindDirectory = Callable[[str], Path | None]
"""Where the scripts of a run keep their files; None where no script runs."""


class RunFiles:
    """The run directories as this process sees them."""

    def __init__(self, find: FindDirectory) -> None:
        self._find = find

    async def are_here(self, run_id: RunId) -> bool:
        """Whether the run has a directory here."""
        directory = self._find(run_id)
        return directory is not None and await asyncio.to_thread(directory.is_dir)

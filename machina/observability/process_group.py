"""The directory in which processes under one supervisor show each other what they count.

Read by whoever asks one of them for metrics. A process keeps its name over restarts, so that the
files stay few and what its predecessor counted still counts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machina.errors import SettingsInvalid

DIRECTORY_VARIABLE: Final = "MACHINA_METRICS_DIR"
NAME_VARIABLE: Final = "MACHINA_METRICS_NAME"
"""Tell a child which group it is in, and as whom; not settings."""
_PREFIX: Final = "machina-metrics-"


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """What a supervisor knows of its group."""

    directory: Path

    def environ(self, name: str) -> dict[str, str]:
        """What a child is told; `name` is its alone in the group."""
        return {DIRECTORY_VARIABLE: str(self.directory), NAME_VARIABLE: name}

    def forget(self, name: str) -> None:
        """Drops what a process that has ended said of itself; what it counted stays."""
        for gauges in self.directory.glob(f"gauge_*_{name}.db"):
            gauges.unlink(missing_ok=True)


@contextmanager
def open_group(
    parent: Path | None = None, *, environ: Mapping[str, str] = os.environ
) -> Iterator[ProcessGroup]:
    """The group of the children of this process: a new one, or the one it is in itself.

    Args:
        parent: Where the directory goes, which then is the only one there; by default among the
            temporary files of the machine.

    Raises:
        SettingsInvalid: the directory cannot be made.
    """
    if inherited := environ.get(DIRECTORY_VARIABLE):
        yield ProcessGroup(Path(inherited))
        return
    for left in parent.glob(f"{_PREFIX}*") if parent is not None else ():
        shutil.rmtree(left, ignore_errors=True)  # of one that was killed
    try:
        directory = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)
    except OSError as failed:
        raise SettingsInvalid(
            f"No directory for temporary files ({failed}); name one that is writable in TMPDIR."
        ) from failed
    with directory as path:
        yield ProcessGroup(Path(path))

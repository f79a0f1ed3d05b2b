"""The command line of bubblewrap: the system and the interpreter to read, one directory to write.

A hard-coded `/tmp` is the directory of the run as well, so that the paths a script hands to the
next one name the same file there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

SANDBOX_TMP: Final = "/tmp"  # noqa: S108  # a name inside the sandbox
_ALWAYS: Final = (
    "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
    "--die-with-parent", "--new-session", "--hostname", "script",
)  # fmt: skip


def find() -> str | None:
    """Where bubblewrap is."""
    return shutil.which("bwrap")


def wrap(
    command: Sequence[str],
    *,
    readable: Iterable[str],
    directory: Path,
    own_user_space: bool,
    keep_setuid: bool,
    network: bool,
) -> list[str]:
    """`command` inside bubblewrap; of `readable` what exists is there, for reading only.

    It passes its own variables on. They are not named here, as everybody on the machine can read
    a command line.
    """
    line = [find() or "bwrap", *_ALWAYS]
    if own_user_space:
        line += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    line += ["--cap-drop", "ALL"]
    places = [Path(path) for path in readable]
    if keep_setuid:
        line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        if any(path.is_relative_to(SANDBOX_TMP) for path in places):
            # To pass the run's own directory, closed to root, on the way to the interpreter; given
            # up with the rest when the child becomes the run's user.
            line += ["--cap-add", "CAP_DAC_READ_SEARCH"]
    if not network:
        line.append("--unshare-net")
    # First, so that an interpreter below the real /tmp is mounted over it and not hidden by it.
    line += ["--bind", str(directory), SANDBOX_TMP]
    made = {Path(SANDBOX_TMP)}
    for path in places:
        line += _parents(path, made)
        # A link of the system, as /lib is one today, stays what it is.
        if path.parent == Path("/") and path.is_symlink():
            line += ["--symlink", os.readlink(path), str(path)]
        else:
            line += ["--ro-bind-try", str(path), str(path)]
    line += ["--proc", "/proc", "--dev", "/dev"]
    line += [*_parents(directory, made), "--bind", str(directory), str(directory)]
    # The system takes this one from a program that runs as another user, as bwrap may.
    line += ["--setenv", "TMPDIR", str(directory)]
    return [*line, "--chdir", "/", "--", *command]


def _parents(path: Path, made: set[Path]) -> list[str]:
    """Makes the directories above a path passable: by itself bubblewrap copies what it finds."""
    line: list[str] = []
    for parent in reversed(path.parents[:-1]):
        if parent not in made:
            made.add(parent)
            line += ["--perms", "0755", "--dir", str(parent)]
    return line

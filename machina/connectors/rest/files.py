"""Reads the local files that a task uploads; nothing outside its run's directory can be reached."""

from __future__ import annotations

import mimetypes
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from machina.errors import ConnectorFailed

_SCRIPTS_TMP: Final = PurePosixPath("/tmp")  # noqa: S108  # a name inside a script's sandbox
"""What scripts call the run's directory where they see no other one."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file to upload: its base name, its type and what is in it."""

    name: str
    kind: str
    content: bytes = field(repr=False)


def read_attachment(text: str, directory: Path | None, max_bytes: int, where: str) -> Attachment:
    """A regular file below `directory`; `text` is relative to it, or absolute. Blocking.

    Every directory on the way is opened in turn and no link is followed, so that nothing a script
    does meanwhile leads elsewhere.

    Raises:
        ConnectorFailed: it is not there, is no regular file, lies elsewhere or is too large.
    """
    if directory is None:
        raise _unusable(where, "this server keeps no files for its runs")
    parts = _parts_below(text, directory)
    if not parts:
        raise _unusable(where, "it is not in the directory of this run")
    content = _read(directory, parts, max_bytes, where)
    kind, _ = mimetypes.guess_type(parts[-1])
    return Attachment(parts[-1], kind or "application/octet-stream", content)


def _parts_below(text: str, directory: Path) -> tuple[str, ...]:
    path = PurePosixPath(text)
    if path.is_absolute():
        for base in (directory, directory.resolve(), _SCRIPTS_TMP):
            if path.is_relative_to(base):
                path = path.relative_to(base)
                break
        else:
            return ()
    return () if ".." in path.parts or "\0" in text else path.parts


def _read(directory: Path, parts: tuple[str, ...], max_bytes: int, where: str) -> bytes:
    with ExitStack() as stack:
        try:
            at = _open(stack, str(directory), os.O_RDONLY | os.O_DIRECTORY, None)
            for part in parts[:-1]:
                at = _open(stack, part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, at)
            # O_NONBLOCK: a pipe would wait for a writer.
            file = _open(stack, parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, at)
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise _unusable(where, "it is no regular file")
            if found.st_size > max_bytes:
                raise _unusable(where, "it is larger than what one request may carry")
            with os.fdopen(os.dup(file), "rb") as stream:
                return stream.read(found.st_size)  # what it grows by meanwhile is not sent
        except OSError:
            raise _unusable(where, "it is not there, or is a link") from None


def _open(stack: ExitStack, name: str, flags: int, at: int | None) -> int:
    opened = os.open(name, flags | os.O_CLOEXEC, dir_fd=at)
    stack.callback(os.close, opened)
    return opened


def _unusable(where: str, why: str) -> ConnectorFailed:
    return ConnectorFailed(
        f"The file that {where} wants to upload cannot be sent: {why}. Use a path that an earlier "
        "task of the run returned."
    )

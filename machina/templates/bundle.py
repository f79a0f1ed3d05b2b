"""What a template is read from: files by their paths in one repository, wherever they lie.

Paths are relative to the repository's root and written with `/`. Nothing outside the root is ever
read, by whatever path or link.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Final, Protocol

from machina.errors import Invalid

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
"""Largest file that is taken into the store."""
MAX_FILES: Final = 50_000
"""Most files of a folder that is looked through."""
_MAX_DEPTH: Final = 32
_NOT_OURS: Final = frozenset(("__MACOSX", "node_modules", "__pycache__"))


class FileRefused(Invalid):
    """A file of a template cannot be read; the message begins with its path."""

    code, title = "template_file_refused", "Template file refused"


class FileMissing(FileRefused):
    """A file that a template names is not there."""

    code, title = "template_file_missing", "Template file missing"


class Bundle(Protocol):
    """The files of one repository, or of an archive. All calls block."""

    def files(self) -> list[str]:
        """The paths of all files, sorted; those of version control and hidden ones are left out."""

    def read(self, path: str) -> bytes:
        """The content of a file.

        Raises:
            FileMissing: there is none.
            FileRefused: it is no regular file inside the bundle, or too large.
        """


class MemoryBundle:
    """Files that are held in memory: those of an archive."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self._content = content
        self._files = sorted(path for path in content if is_visible(path))

    def files(self) -> list[str]:
        """See `Bundle`."""
        return self._files

    def read(self, path: str) -> bytes:
        """See `Bundle`."""
        content = self._content.get(path)
        if content is None:
            raise _missing(path)
        if len(content) > MAX_FILE_BYTES:
            raise _too_large(path)
        return content


class FolderBundle:
    """The files below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._files: list[str] | None = None

    def files(self) -> list[str]:
        """See `Bundle`. Links are not followed; the folder is looked through once."""
        if self._files is None:
            self._files = self._find_files()
        return self._files

    def _find_files(self) -> list[str]:
        found: list[str] = []
        for path in _walk(self._root, "", 0):
            if len(found) >= MAX_FILES:
                raise FileRefused(f"The folder holds more than {MAX_FILES} files; choose a part.")
            found.append(path)
        return sorted(found)

    def read(self, path: str) -> bytes:
        """See `Bundle`. A link counts as what it points to, when that is inside."""
        real = Path(os.path.realpath(self._root / path))
        if not real.is_relative_to(self._root):
            raise FileRefused(f"{path}: leads out of the repository; only what is inside is read.")
        try:
            # Opened without waiting, for a pipe would wait for ever.
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(path) from None
        except OSError as failed:
            raise FileRefused(f"{path}: cannot be read ({failed.strerror}).") from None
        if not S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FileRefused(f"{path}: is no regular file.")
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise _too_large(path)
        return content


def _walk(directory: Path, prefix: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise FileRefused(f"{prefix}: folders are nested deeper than {_MAX_DEPTH} levels.")
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as failed:
        raise FileRefused(f"{prefix or '.'}: cannot be read ({failed.strerror}).") from None
    for entry in entries:
        if not is_visible(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(directory / entry.name, f"{prefix}{entry.name}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            yield f"{prefix}{entry.name}"


def is_visible(path: str) -> bool:
    """Whether no part of a path is hidden or belongs to a tool."""
    return not any(part.startswith(".") or part in _NOT_OURS for part in path.split("/"))


def resolve(base: str, path: str) -> str:
    """A path that a file in directory `base` names, as a path of the repository.

    Raises:
        FileRefused: absolute, or it leaves the repository.
    """
    if path.startswith(("/", "~")) or "\\" in path or path[1:2] == ":" or not path.isprintable():
        raise FileRefused(f"{path!r:.200}: not a relative path; write it with '/' between names.")
    whole = posixpath.normpath(posixpath.join(base, path))
    if whole == ".." or whole.startswith("../"):
        raise FileRefused(f"{path}: leaves the repository; only files inside it are read.")
    if ".git" in whole.lower().split("/"):
        raise FileRefused(f"{path}: belongs to version control.")
    return "" if whole == "." else whole


def resolve_below(base: str, path: str) -> str:
    """A path in the same directory or below it.

    Raises:
        FileRefused: it is anywhere else.
    """
    whole = resolve(base, path)
    if base and not whole.startswith(f"{base}/"):
        raise FileRefused(f"{path}: must lie in the directory of the file that names it, or below.")
    return whole


def _missing(path: str) -> FileMissing:
    return FileMissing(f"{path}: no such file in the template's repository.")


def _too_large(path: str) -> FileRefused:
    return FileRefused(f"{path}: larger than {MAX_FILE_BYTES} bytes.")

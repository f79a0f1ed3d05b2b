"""Zip archives from outside: checked as a whole, then read into memory. Nothing touches the disk.

One hostile entry refuses the archive. Sizes are those of the archive's directory; an entry that
unpacks to more is cut there and refused by its checksum.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO, Final

from machina.errors import Invalid, TooLarge
from machina.templates.bundle import MemoryBundle

MAX_ENTRIES: Final = 2_000
MAX_RATIO: Final = 100
"""Bytes an entry may unpack to for each byte it takes in the archive."""
RATIO_FROM_BYTES: Final = 65_536
"""Smaller entries may be as dense as they like."""
_MAX_DIRECTORY_BYTES: Final = 4 * 1024 * 1024
_MAX_PATH_BYTES: Final = 512
_MAX_NAME_BYTES: Final = 255
_CHUNK_BYTES: Final = 65_536
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FILE_TYPES: Final = (0, stat.S_IFREG, stat.S_IFDIR)
_ENCRYPTED: Final = 0x1 | 0x40

_END: Final = struct.Struct("<4s4H2LH")
_END_MARK: Final = b"PK\x05\x06"
_END_MARK_64: Final = b"PK\x06\x07"
_LOCATOR_BYTES: Final = 20
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_MAX_COMMENT: Final = 65_535
_BROKEN: Final = (zipfile.BadZipFile, RuntimeError, ValueError, OSError)
"""What `zipfile` raises for an archive it cannot read: damaged, encrypted, or packed by a method it
does not know (that last error is a kind of `RuntimeError`)."""


class ArchiveRefused(Invalid):
    """An archive is broken or hostile; nothing of it is used."""

    code, title = "archive_refused", "Archive refused"


def read_archive(file: IO[bytes], max_bytes: int) -> MemoryBundle:
    """The files of a zip archive. Blocking.

    Args:
        file: The archive, seekable.
        max_bytes: What all files together may unpack to.

    Raises:
        ArchiveRefused: no zip archive, or one with anything in it that is not a plain file.
        TooLarge: it unpacks to more than `max_bytes`.
    """
    end = _check_end(file)
    try:
        with zipfile.ZipFile(file) as archive:
            return MemoryBundle(_read_all(file, archive, max_bytes, end))
    except _BROKEN as broken:
        raise ArchiveRefused(f"The archive is broken: {broken}.") from None
    except (zlib.error, EOFError, struct.error, UnicodeError):
        raise ArchiveRefused("The archive is broken: an entry cannot be unpacked.") from None


def _read_all(
    file: IO[bytes], archive: zipfile.ZipFile, max_bytes: int, end: int
) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise ArchiveRefused(f"The archive has more than {MAX_ENTRIES} entries.")
    paths = {id(entry): _check_entry(entry) for entry in entries}
    _check_names(paths.values(), [p for e in entries if not e.is_dir() for p in [paths[id(e)]]])
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise TooLarge(f"The archive unpacks to more than {max_bytes} bytes.")
    _check_overlap(file, entries, end)
    return {paths[id(e)]: _read_entry(archive, e) for e in entries if not e.is_dir()}


def _check_end(file: IO[bytes]) -> int:
    """Refuses an archive by its last record, before its directory is read into memory.

    Returns:
        Where that record begins.
    """
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _END.size - _MAX_COMMENT)
    file.seek(start)
    tail = file.read()
    place = len(tail) - _END.size
    # The same search as zipfile's: a record without a comment, else the last one that is there.
    if place < 0 or not tail.startswith(_END_MARK, place) or tail[-2:] != b"\0\0":
        place = tail.rfind(_END_MARK)
    if place < 0 or len(tail) - place < _END.size:
        raise ArchiveRefused("The file is no zip archive.")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(tail, place)
    locator = file.seek(max(0, start + place - _LOCATOR_BYTES))
    if file.read(4) == _END_MARK_64 and locator:
        raise ArchiveRefused("The archive is of the zip64 form, which is for more than 4 GiB.")
    if entries > MAX_ENTRIES or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ArchiveRefused(f"The archive has more than {MAX_ENTRIES} entries.")
    file.seek(0)
    return start + place


def _check_entry(entry: zipfile.ZipInfo) -> str:
    """The path of an entry, when it may be in an archive at all."""
    path = _check_path(entry.orig_filename)
    shown = f"'{path:.100}'"
    if stat.S_IFMT(entry.external_attr >> 16) not in _FILE_TYPES:
        raise ArchiveRefused(f"The archive holds a link or a device, {shown}.")
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveRefused(f"The archive is encrypted ({shown}).")
    if entry.compress_type not in _METHODS:
        raise ArchiveRefused(f"{shown} is packed by a method other than deflate.")
    if entry.file_size > RATIO_FROM_BYTES and entry.file_size > MAX_RATIO * entry.compress_size:
        raise ArchiveRefused(f"{shown} unpacks to more than {MAX_RATIO} times its size.")
    return path


def _check_path(name: str) -> str:
    if name == "./":  # how some tools write the root itself
        return ""
    path = name.removeprefix("./").removesuffix("/")
    parts = path.split("/")
    if (
        "\\" in name
        or _DRIVE.match(path)
        or not name.isprintable()
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ArchiveRefused(f"The archive holds the path {name!r:.100}, which is not allowed.")
    if len(path.encode(errors="replace")) > _MAX_PATH_BYTES or any(
        len(part.encode(errors="replace")) > _MAX_NAME_BYTES for part in parts
    ):
        raise ArchiveRefused(f"The archive holds a path that is too long: '{path:.60}…'.")
    return path


def _check_names(paths: Iterable[str], files: list[str]) -> None:
    """Refuses two entries that are one file on some file system, and a file that is a folder."""
    seen: dict[str, str] = {}
    for path in paths:
        folded = _folded(path)
        if folded in seen:
            raise ArchiveRefused(f"The archive holds '{path:.100}' twice, or in two spellings.")
        seen[folded] = path
    names = {_folded(path) for path in files}
    for folded in seen:
        parts = folded.split("/")
        if any("/".join(parts[:n]) in names for n in range(1, len(parts))):
            raise ArchiveRefused(f"The archive holds '{seen[folded]:.100}' below a file.")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())


def _check_overlap(file: IO[bytes], entries: list[zipfile.ZipInfo], end: int) -> None:
    """Refuses entries that share bytes: a small archive could unpack to any size by that."""
    limit = end
    for entry in sorted(entries, key=lambda entry: entry.header_offset, reverse=True):
        file.seek(entry.header_offset)
        header = _LOCAL.unpack(file.read(_LOCAL.size))
        data_end = entry.header_offset + _LOCAL.size + header[-2] + header[-1]
        if data_end + entry.compress_size > limit:
            raise ArchiveRefused(f"Entries of the archive overlap ('{entry.filename:.100}').")
        limit = entry.header_offset


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """In pieces: read at once, an entry that lies about its size would be unpacked whole first."""
    pieces: list[bytes] = []
    with archive.open(entry) as file:
        while piece := file.read(_CHUNK_BYTES):
            pieces.append(piece)
    return b"".join(pieces)

"""Files in a form: kept as blobs for the worker, which lays them into the directory of the run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import UploadFile
from starlette.requests import Request

from machina.resources import Resources

MAX_FILES: Final = 16
MAX_FIELDS: Final = 100
MAX_FIELD_BYTES: Final = 1_048_576
_READ_BYTES: Final = 65_536
_SPARE_SECONDS: Final = 3_600.0
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(slots=True)
class Form:
    """A form: its texts, and for each file the blob it is kept in and its path in the run."""

    texts: dict[str, str] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    """`{field, path, blob, size, digest}`."""

    @property
    def blobs(self) -> list[str]:
        return [file["blob"] for file in self.files]


async def read_form(request: Request, project: str, resources: Resources) -> Form:
    """Reads the form and keeps its files for as long as a run may wait and last.

    Raises:
        HTTPException: 400, it is no form or has too many parts.
        TooLarge: it is larger than the limit of uploads.
    """
    settings = resources.settings
    keep = settings.queue_timeout_seconds + settings.run_timeout_seconds + _SPARE_SECONDS
    form = Form()
    async with request.form(
        max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    ) as parts:
        try:
            for name, part in parts.multi_items():
                if isinstance(part, UploadFile):
                    digest = hashlib.sha256()
                    blob, size = await resources.store.blobs.add(
                        project, _content(part, digest.update), keep_seconds=keep
                    )
                    path = _path(len(form.files), part.filename)
                    file = {"field": name, "path": path, "blob": blob, "size": size}
                    form.files.append(file | {"digest": digest.hexdigest()})
                else:
                    form.texts[name] = part
        except BaseException:
            await resources.store.blobs.delete(project, *form.blobs)
            raise
    return form


async def _content(part: UploadFile, note: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    while data := await part.read(_READ_BYTES):
        note(data)
        yield data


def _path(number: int, filename: str | None) -> str:
    """A name for the file in the directory of its run, whatever the caller calls it."""
    plain = _STRANGE.sub("_", (filename or "").replace("\\", "/").rpartition("/")[2]).lstrip(".")
    return f"upload-{number}-{plain[-100:] or 'file'}"

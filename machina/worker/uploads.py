"""Files that came with a call: laid into its run's directory before the connector is called."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from machina.errors import ConnectorFailed
from machina.runs.run import Run
from machina.store.blobs import BlobStore

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class Uploads:
    """Lays files out for the runs of one worker process."""

    def __init__(self, blobs: BlobStore, directory: Callable[[str], Path | None]) -> None:
        """`directory` gives the directory of a run, which need not be there yet; None: none can."""
        self._blobs = blobs
        self._directory = directory

    async def lay(self, run: Run) -> None:
        """Lays out the files of a run; does nothing for a run without. Harmless to repeat.

        Raises:
            ConnectorFailed: this worker keeps no files, or one is not there any more.
            StoreDown: the store did not answer.
        """
        uploads = run.inputs.get("uploads") if run.kind == "task" else None
        if not uploads:
            return
        directory = self._directory(run.id)
        if directory is None:
            raise ConnectorFailed(
                "The call brings files, and this worker keeps none for its runs; enable scripts, "
                "or send the data in the inputs.",
                code="scripts_disabled",
            )
        await asyncio.to_thread(directory.mkdir, mode=0o700, exist_ok=True)
        for upload in uploads:
            await self._lay_one(run.project, directory, upload)

    async def _lay_one(self, project: str, directory: Path, upload: dict[str, Any]) -> None:
        name = upload["path"]
        if not _NAME.fullmatch(name):
            raise ConnectorFailed(f"{name!r:.140} is no name of an uploaded file; send it again.")
        # Under a name of its own first: an earlier attempt may have left anything under the other.
        draft = directory / f"{name}.{secrets.token_hex(8)}"
        try:
            if not await self._copy(project, upload["blob"], draft):
                raise ConnectorFailed(
                    f"The uploaded file '{name}' is not kept any more; send the call again."
                )
            await asyncio.to_thread(os.replace, draft, directory / name)
        finally:  # what is half-written must not look like a file of the call
            await asyncio.to_thread(draft.unlink, missing_ok=True)

    async def _copy(self, project: str, blob: str, draft: Path) -> bool:
        """Whether there was anything to copy."""
        found = False
        file = await asyncio.to_thread(_open_new, draft)
        try:
            async for data in self._blobs.read(project, blob):
                found = True
                await asyncio.to_thread(file.write, data)
        finally:
            await asyncio.to_thread(file.close)
        return found


def _open_new(path: Path) -> IO[bytes]:
    """A new file that the script's user may read, whoever that is: its directory is closed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "wb")

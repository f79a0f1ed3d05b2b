"""Bundles and archives for tests, and a store to install them into."""

from __future__ import annotations

import asyncio
import io
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machina.store import Store
from machina.templates import TemplateReport
from machina.templates.bundle import FolderBundle
from machina.templates.install import Installer
from machina.templates.plan import Source
from machina.templates.sources import read_plans

BUNDLES = Path(__file__).parent / "bundles"
"""A repository of templates as authors write them, with every irregularity of the format."""
SOURCE = Source("folder", "bundles")


def bundles() -> FolderBundle:
    """The repository of samples."""
    return FolderBundle(BUNDLES)


async def install(store: Store, template: str, project: str = "default") -> TemplateReport:
    """Installs one of the samples."""
    (plan,) = await asyncio.to_thread(lambda: read_plans(bundles(), template=template))
    return await Installer(store, project).install(plan, SOURCE)


def zipped(files: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of these files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def zipped_folder(folder: Path) -> bytes:
    """An archive of a folder, as the official client packs one."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return zipped({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def entry(name: str, *, mode: int = stat.S_IFREG | 0o644, **fields: Any) -> zipfile.ZipInfo:
    """An entry of an archive with a mode of its own."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info

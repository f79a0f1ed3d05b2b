"""Installing from anywhere into a store: what API and command line call.

Reading happens in a thread, because files, archives and git block; writing happens on the loop. At
most one installation goes on at a time in a process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, TypeVar

from machina.errors import MachinaError, StoreDown, Unavailable
from machina.settings import Settings
from machina.store import Store
from machina.store.base import Record
from machina.templates.archive import read_archive
from machina.templates.bundle import FileRefused
from machina.templates.install import Installer
from machina.templates.plan import Plan, Source
from machina.templates.records import TemplateRecords
from machina.templates.report import TemplateReport
from machina.templates.sources import GitRequest, open_folder, read_plans

MAX_WAITING: Final = 4
"""Installations that wait for another; one more is sent away."""

_Result = TypeVar("_Result")


class InstallBusy(Unavailable):
    """Other installations are going on in this process."""

    code, title = "install_busy", "Other installations are going on"
    default_retry_after = 10.0


class Templates:
    """Installs templates into one store. Every call raises `StoreDown` when the store is away."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._lock = asyncio.Lock()
        self._present = 0

    async def install_folder(
        self, project: str, path: Path, template: str = ""
    ) -> list[TemplateReport]:
        """Installs the templates in a local folder.

        Raises:
            NoTemplate: there is none.
        """

        def read(stop: threading.Event) -> list[Plan]:
            folder = open_folder(path)
            return read_plans(folder.bundle, folder.directory, template)

        source = Source("folder", str(path))
        async with self._turn():
            return await self._install(project, await _in_thread(read), source)

    async def install_archive(
        self, project: str, file: IO[bytes], name: str, template: str = ""
    ) -> list[TemplateReport]:
        """Installs what a zip archive holds.

        Raises:
            ArchiveRefused: the archive is broken or hostile; nothing is installed.
            NoTemplate: there is nothing in it to install.
            TooLarge: it unpacks to more than the setting allows.
        """
        most = self._settings.template_max_bytes

        def read(stop: threading.Event) -> list[Plan]:
            return read_plans(read_archive(file, most), template=template)

        async with self._turn():
            return await self._install(project, await _in_thread(read), Source("archive", name))

    async def install_git(
        self, project: str, requests: Sequence[GitRequest]
    ) -> list[TemplateReport]:
        """Installs templates from git repositories; one that fails does not hold up the others.

        What is of one repository is cloned once, and installed in the order of the requests.
        """
        reports: list[TemplateReport] = []
        async with self._turn():
            for request, templates in _grouped(requests):
                try:
                    found, source = await self._fetch(request, templates)
                except StoreDown:
                    raise
                except MachinaError as failed:
                    reports += [_unread(template, failed) for template in templates]
                    continue
                for template, plans in zip(templates, found, strict=True):
                    if isinstance(plans, FileRefused):
                        reports.append(_unread(template, plans))
                    else:
                        reports += await self._install(project, plans, source)
        return reports

    async def install_pushed(self, ref: str, changed: Sequence[str]) -> list[TemplateReport]:
        """Installs again, in every project, what a push to its repository changed.

        Args:
            ref: The branch that was pushed, as git names it; empty for any.
            changed: Paths in the repository; empty for any.
        """
        reports: list[TemplateReport] = []
        records = await TemplateRecords(self._store).find({"kind": "git"})
        affected = [record for record in records if is_affected(record, ref, changed)]
        for record in affected:
            if record["private"]:
                reports.append(
                    TemplateReport(
                        record["directory"] or record["place"],
                        error="The repository is private and its token is not kept; "
                        "install it again with one.",
                        code="token_missing",
                    )
                )
        for project in dict.fromkeys(record["project"] for record in affected):
            requests = [
                GitRequest(record["place"], record["branch"], record["directory"])
                for record in affected
                if record["project"] == project and not record["private"]
            ]
            reports += await self.install_git(project, requests)
        return reports

    async def list_git(self, request: GitRequest) -> list[dict[str, Any]]:
        """The templates of a repository.

        Raises:
            GitRefused: the repository may not be cloned.
            GitFailed: it cannot be.
        """

        def read(stop: threading.Event) -> list[dict[str, Any]]:
            listed: list[dict[str, Any]] = _fetching().list_remote(request, self._settings, stop)
            return listed

        async with self._turn():
            return await _in_thread(read)

    async def _fetch(
        self, request: GitRequest, templates: Sequence[str]
    ) -> tuple[list[list[Plan] | FileRefused], Source]:
        def read(stop: threading.Event) -> tuple[list[list[Plan] | FileRefused], Source]:
            found: tuple[list[list[Plan] | FileRefused], Source] = _fetching().fetch(
                request, templates, self._settings, stop
            )
            return found

        return await _in_thread(read)

    async def _install(
        self, project: str, plans: Sequence[Plan], source: Source
    ) -> list[TemplateReport]:
        installer = Installer(self._store, project)
        return [await installer.install(plan, source) for plan in plans]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._present > MAX_WAITING:
            raise InstallBusy("Other templates are being installed; try again in a moment.")
        self._present += 1
        try:
            async with self._lock:
                yield
        finally:
            self._present -= 1


def _grouped(requests: Sequence[GitRequest]) -> list[tuple[GitRequest, list[str]]]:
    """Neighbours that differ in nothing but the template, with the templates they name."""
    keyed = groupby(requests, key=lambda request: replace(request, template=""))
    return [(request, [each.template for each in group]) for request, group in keyed]


def _unread(template: str, failed: MachinaError) -> TemplateReport:
    return TemplateReport(template or "repository", error=failed.message, code=failed.code)


def is_affected(record: Record, ref: str, changed: Sequence[str]) -> bool:
    """Whether a push concerns an installed template: its branch, and a file it is made of."""
    branch = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    if branch and record["branch"] not in ("", branch):
        return False
    inside = f"{record['directory']}/" if record["directory"] else ""
    files = set(record["files"])
    return not changed or any(path in files or path.startswith(inside) for path in changed)


def _fetching() -> ModuleType:
    """What clones: it brings an HTTP library along, which loads when something is cloned."""
    from machina.templates import fetching  # noqa: PLC0415  # see above

    return fetching


async def _in_thread(work: Callable[[threading.Event], _Result]) -> _Result:
    """Runs blocking work; when the caller is cancelled the event tells the work to stop."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()

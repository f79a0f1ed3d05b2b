"""The commands `templates install` and `templates list`: they need the store and no Redis.

They may run while the server does: it sees what was installed at its next run.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import typer

from machina.cli.preflight import load_store_settings
from machina.errors import SettingsInvalid
from machina.observability.logging import configure
from machina.settings import Settings, load_settings
from machina.store import open_store
from machina.templates import Counts, EntryReport, GitRequest, TemplateReport, Templates
from machina.templates.archive import read_archive
from machina.templates.sources import list_folder, list_templates


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line names: a folder, an archive or a repository's URL."""

    source: str
    branch: str = ""
    template: str = ""
    project: str = "default"
    as_json: bool = False


def install(wanted: Wanted, *, data_dir: Path | None) -> None:
    """Installs templates and prints a line for each thing in them; exits 1 if anything failed.

    Raises:
        SettingsInvalid: the source is none, or no store is named.
        MachinaError: nothing could be read from the source.
    """
    settings = load_store_settings(data_dir)
    configure(settings.model_copy(update={"log_level": "error"}), process="templates")
    path = Path(wanted.source)
    with path.open("rb") if path.is_file() else nullcontext() as archive:
        reports = asyncio.run(_install(settings, wanted, archive, path.is_dir()))
    if wanted.as_json:
        print(json.dumps([report.as_answer() for report in reports], indent=2))
    else:
        for line in _lines(reports):
            print(line)
    if not all(report.is_complete for report in reports):
        raise typer.Exit(1)


def show(wanted: Wanted) -> None:
    """Prints the templates of a source; needs no store.

    Raises:
        SettingsInvalid: the source is none.
        MachinaError: it cannot be read.
    """
    settings = load_settings()
    configure(settings.model_copy(update={"log_level": "error"}), process="templates")
    rows = _list(settings, wanted)
    if wanted.as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        told = row.get("error") or row.get("title") or ""
        print(f"{row['path']:<50} {len(row['datasets']):>4} files  {told}".rstrip())


async def _install(
    settings: Settings, wanted: Wanted, archive: IO[bytes] | None, is_folder: bool
) -> list[TemplateReport]:
    async with open_store(settings) as store:
        templates = Templates(store, settings)
        project, path = wanted.project, Path(wanted.source)
        if archive is not None:
            return await templates.install_archive(project, archive, path.name, wanted.template)
        if is_folder:
            return await templates.install_folder(project, path, wanted.template)
        return await templates.install_git(project, [_git_request(settings, wanted)])


def _list(settings: Settings, wanted: Wanted) -> list[dict[str, Any]]:
    path = Path(wanted.source)
    if path.is_file():
        with path.open("rb") as file:
            return list_templates(read_archive(file, settings.template_max_bytes))
    if path.is_dir():
        return list_folder(path)
    from machina.templates.fetching import list_remote

    return list_remote(_git_request(settings, wanted), settings, threading.Event())


def _git_request(settings: Settings, wanted: Wanted) -> GitRequest:
    if ":" not in wanted.source:
        raise SettingsInvalid(
            f"{wanted.source}: no such folder or archive, and no https:// URL of a repository."
        )
    token = None
    if settings.git_token is not None and wanted.source.startswith("https://"):
        token = settings.git_token.get_secret_value()
    return GitRequest(wanted.source, wanted.branch, wanted.template, token)


def _lines(reports: Sequence[TemplateReport]) -> Iterator[str]:
    for report in reports:
        yield f"{report.template}:"
        if report.error is not None:
            yield f"  FAILED   {report.error}"
        for entry in report.entries:
            yield from _entry_lines(entry)
    yield f"{Counts.of(reports).as_text()}."


def _entry_lines(entry: EntryReport) -> Iterator[str]:
    for result, name in zip(entry.results, entry.names, strict=True):
        if not result["status"]:
            yield f"  FAILED   {result['message']}"
        elif result.get("skipped"):
            yield f"  skipped  {result['message'].removeprefix('skipped: ')}"
        else:
            kind, _, verb = result["message"].rpartition(" ")
            yield f"  {verb:<8} {kind} {name}"
            yield from _missing_lines(result.get("missing", {}))


def _missing_lines(missing: dict[str, list[Any]]) -> Iterator[str]:
    for what, items in missing.items():
        for item in items:
            shown = item.get("name") or item.get("path") if isinstance(item, dict) else item
            yield f"           missing {what.replace('_', ' ').removesuffix('s')}: {shown}"

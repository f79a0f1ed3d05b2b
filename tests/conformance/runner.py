"""Runs conformance cases through the real worker: one deployment, a project of its own per case."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import yaml

from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.templates import TemplateReport, Templates
from machina.worker.crew import WorkerCrew
from machina.worker.providers import Providers
from tests.conformance.case_files import Case
from tests.conformance.expectations import assert_has, assert_items, assert_same
from tests.egress.server import Answer, Server, ok
from tests.egress.server import Seen as Request
from tests.fleet import (
    ask,
    assert_sound,
    get_run,
    make_settings,
    open_process,
    open_worker,
    types_of,
    watch,
)
from tests.services import RedisServer

SERVER: Final = "http://server.test"
"""How cases call the tests' HTTP server, which answers by path; see `answer`."""
VAULT_KEY: Final = base64.b64encode(bytes(range(32))).decode()
_KINDS: Final = ("workflow", "agent", "skill")


@dataclass
class Seen:
    """What became of a case; `run` and `events` are those of its last run."""

    installed: list[TemplateReport] = field(default_factory=list)
    run: Run | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)


class QuickProviders(Providers):
    """The providers of a worker, with a scripted model that answers at once unless told."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._options = replace(self._options, pace_seconds=0.0)


class Deployment:
    """API, worker, store and HTTP server that all cases of a module share."""

    def __init__(self, api: Resources, worker: WorkerCrew, server: Server, directory: Path) -> None:
        self.api = api
        self.worker = worker
        self.server = server
        self._directory = directory
        self._numbers = count(1)
        self._templates = Templates(api.store, api.settings)

    async def prove(self, case: Case) -> Seen:
        """Runs the case and fails the test unless everything that it expects was seen."""
        seen = await self.run(case)
        check(case, seen)
        return seen

    async def run(self, case: Case) -> Seen:
        """Installs the case's files and runs what it runs, in a project of its own."""
        project = f"case-{next(self._numbers)}"
        seen = Seen()
        store = self.api.store
        for name, value in case.secrets.items():
            await store.secrets.put(project, name, value)
        for document in case.documents:
            fields = {key: value for key, value in document.items() if key != "_id"}
            await store.documents.insert(project, fields, id=document.get("_id"))
        if case.install or case.files:
            seen.installed = await self._install(case, project)
        self.server.seen.clear()
        with _environment(case.environment):
            for asked in case.runs:
                await self._execute(asked, project, seen)
        found = await store.documents.find(
            project, {}, sort=(("created", 1), ("_id", 1)), limit=1000
        )
        seen.documents = found
        seen.requests = list(self.server.seen)
        seen.secrets = await store.secrets.values(project)
        return seen

    async def _install(self, case: Case, project: str) -> list[TemplateReport]:
        folder = self._directory / project
        self._write(folder, case)
        return await self._templates.install_folder(project, folder)

    def _write(self, folder: Path, case: Case) -> None:
        """The files as an author has them; without a manifest, one that lists `install`."""
        listed = []
        files = dict(case.files)
        for number, text in enumerate(case.install, start=1):
            name = f"{number:02}.yml"
            files[name] = text
            root = text.lstrip().partition(":")[0]
            listed.append({"type": root, "path": name})
        manifest = {"setup": {"title": "Case"}, "datasets": listed}
        files.setdefault("_install.yml", yaml.safe_dump(manifest))
        for path, text in files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text.replace(SERVER, self.server.url("")), encoding="utf-8")

    async def _execute(self, asked: Mapping[str, Any], project: str, seen: Seen) -> None:
        kind = next(kind for kind in _KINDS if kind in asked)
        request = ask(
            "",
            project=project,
            kind=kind,
            target_name=asked[kind],
            inputs=asked.get("payload", {}),
            streamed=asked.get("stream", True),
            stream_workflows=asked.get("stream_workflows", False),
            may_administer=not asked.get("client", False),
            thread_id=asked.get("thread_id"),
        )
        run, _ = await self.api.runs.submit(request)
        await self.worker.execute(run.id)
        seen.run = await get_run(self.api, run)
        seen.events = await watch(self.api, run)
        assert_sound(seen.events)


def check(case: Case, seen: Seen) -> None:
    """Fails the test unless everything that the case expects was seen."""
    expect = dict(case.expect)
    if seen.run is not None:
        # A case that means to fail must say so, and no event may tell another end than the record.
        assert seen.run.status == expect.pop("status", "executed"), seen.run.outcome
        _check_run(expect, seen.run, seen.events)
    _check_events(expect, seen.events)
    _check_world(expect, seen)
    _check_absent(expect.pop("absent", []), seen)
    assert not expect, f"nobody looked at {sorted(expect)}"


def _check_run(expect: dict[str, Any], run: Run, events: Sequence[Mapping[str, Any]]) -> None:
    outcome = run.outcome
    assert outcome is not None
    done = events[-1]["metadata"]
    assert done["status"] == run.status
    if "state" in expect:
        assert_same(done["state"], expect.pop("state"), "state")
    if "state_has" in expect:
        assert_has(done["state"], expect.pop("state_has"), "state")
    if "content" in expect:
        assert_same(done["content"], expect.pop("content"), "content")
    error = {name: getattr(outcome, name) for name in ("code", "message", "workflow", "task")}
    if "error" in expect:
        assert_has(error, expect.pop("error"), "error")
    elif run.status == "executed":
        assert outcome.code is None, error
    for name in ("tasks", "steps"):
        if name in expect:
            _check_rows(getattr(run, name), expect.pop(name), name)
    if "tokens" in expect:
        assert_has(run.tokens, expect.pop("tokens"), "tokens")


def _check_rows(seen: Sequence[Mapping[str, Any]], expected: Sequence[Any], where: str) -> None:
    """Rows of a log; one expected as `[name, status]` is short for a dictionary."""
    rows = [
        {"name": row[0], "status": row[1]} if isinstance(row, list) else row for row in expected
    ]
    assert_items(seen, rows, where)


def _check_events(expect: dict[str, Any], events: Sequence[Mapping[str, Any]]) -> None:
    """Events expected as types (pieces of one type in a row count once), or as dictionaries."""
    wanted = expect.pop("events", None)
    if wanted is None:
        return
    if all(isinstance(event, str) for event in wanted):
        assert types_of(events) == wanted, types_of(events)
        return
    for event in wanted:
        found = [one for one in events if one["type"] == event["type"]]
        assert any(_has(one, event) for one in found), f"no {event} in {found}"


def _has(event: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    try:
        assert_has(event, expected, "event")
    except AssertionError:
        return False
    return True


def _check_world(expect: dict[str, Any], seen: Seen) -> None:
    if "documents" in expect:
        assert_items(seen.documents, expect.pop("documents"), "documents")
    if "requests" in expect:
        rows = [_shown(request) for request in seen.requests]
        assert_items(rows, expect.pop("requests"), "requests")
    if "secrets" in expect:
        assert_same(seen.secrets, expect.pop("secrets"), "secrets")
    results = [result for report in seen.installed for result in report.results]
    if "installed" in expect:
        assert_items(results, expect.pop("installed"), "installed")
    else:
        assert all(result["status"] for result in results), results


def _check_absent(texts: Sequence[str], seen: Seen) -> None:
    """Secrets, which must be in nothing that was kept or said."""
    told = f"{seen.run} {seen.events} {seen.documents}"
    for text in texts:
        assert text not in told, f"{text!r} is in {told}"


def _shown(request: Request) -> dict[str, Any]:
    body: Any = request.body.decode()
    if "json" in request.headers.get("content-type", "") and body:
        body = json.loads(body)
    return {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": body,
    }


def answer(request: Request) -> Answer:
    """`/reply?JSON` answers that JSON, `/status/N` fails with N, anything else is an echo."""
    path, _, query = request.target.partition("?")
    if path == "/reply":
        return ok(json.loads(unquote(query)))
    if path.startswith("/status/"):
        return Answer(
            int(path.removeprefix("/status/")), b"refused", {"Content-Type": "text/plain"}
        )
    return ok(_shown(request))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """What the operator sets for the workers, for the length of a case."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@asynccontextmanager
async def open_deployment(directory: Path, redis: RedisServer) -> AsyncIterator[Deployment]:
    """One API, one worker and one HTTP server on a store in `directory`."""
    settings = make_settings(
        directory / "store", redis.url, vault_key=VAULT_KEY, work_dir=directory / "work"
    )
    async with (
        Server(answer) as server,
        open_process(settings) as api,
        open_worker(settings, make_providers=QuickProviders) as worker,
    ):
        yield Deployment(api, worker, server, directory)

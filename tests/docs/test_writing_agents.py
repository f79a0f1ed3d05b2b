"""Every example of `docs/writing-agents.md` is installed and gives what the page says.

A comment `file: PATH` before a fenced block makes it that file of a template. A comment `try` holds
YAML documents, each a run: `run` (kind and name), `with` (the payload), and what comes of it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs

from machina.definitions.loading import load_documents
from machina.definitions.loading_roots import read_roots
from machina.definitions.schedule import read_plans
from machina.expressions import Scope, compile_expression, evaluate
from machina.resources import Resources
from machina.runs.run import Run
from machina.settings import Settings
from machina.templates import Templates
from machina.worker.crew import WorkerCrew
from tests.egress.server import Server, ok
from tests.fleet import PROJECT, api, ask, get_run, make_settings, types_of, watch, worker
from tests.services import RedisServer

__all__ = ["api", "worker"]

PAGE = (Path(__file__).parents[2] / "docs" / "writing-agents.md").read_text()
FENCE = re.compile(r"(?:<!-- file: (\S+) -->\n)?^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TRY = re.compile(r"^<!-- try\n(.*?)^-->$", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| `(.+)` \| `(.+)` \|$", re.MULTILINE)
STATE = re.compile(r"With the state `(.*?)`:", re.DOTALL)
HOST = "https://shop.example"
SECRET = "s3cret"
CHECKS = frozenset(
    ("run", "with", "gives", "content", "status", "code", "tasks", "events", "documents")
) | frozenset(("http", "schedules", "traced", "logged"))
ANSWERS: Mapping[str, Any] = {
    "/v1/orders/ns:7/items": {"items": [{"name": "pen"}, {"name": "ink"}]},
    "/v1/orders": {"id": "o-1"},
    "/ping": {"up": True},
}


@dataclass(frozen=True)
class Example:
    """One run that the page promises something about."""

    wanted: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return str(self.wanted["run"]).partition(" ")[0]

    @property
    def name(self) -> str:
        return str(self.wanted["run"]).partition(" ")[2]


def examples() -> list[Example]:
    return [Example(w) for block in TRY.findall(PAGE) for w in yaml.safe_load_all(block)]


def files() -> dict[str, str]:
    return {path: text for path, _, text in FENCE.findall(PAGE) if path}


def definitions() -> list[tuple[str, Mapping[str, Any]]]:
    """Kind and definition of everything in the files, but manifests and skills' documents."""
    found = []
    for path, text in files().items():
        if path.endswith(".yml") and not path.endswith("_install.yml"):
            for document in load_documents(text.encode()):
                for root in read_roots(document, file_name=path, hint=None):
                    found += [(str(root.kind), item) for item in root.items]
    return found


@pytest.fixture
async def server() -> Any:
    async with Server(lambda seen: ok(ANSWERS[seen.path])) as server:
        yield server


@pytest.fixture
def settings(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setenv("MACHINA_CONTEXT_VARIABLE_SHOP_KEY", SECRET)
    return make_settings(tmp_path / "data", redis_server.url, scripts="on")


@pytest.fixture
async def installed(api: Resources, tmp_path: Path, server: Server) -> None:
    """All files of the page, installed: one template with its manifest, the rest without."""
    await asyncio.to_thread(_write_files, tmp_path, server.url(""))
    templates = Templates(api.store, api.settings)
    for folder in ("greeter", "rest"):
        for report in await templates.install_folder(PROJECT, tmp_path / "page" / folder):
            assert report.is_complete, report.as_answer()


def _write_files(root: Path, place: str) -> None:
    for path, text in files().items():
        target = root / "page" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace(HOST, place))


async def test_every_example_gives_what_the_page_says(
    installed: None, api: Resources, worker: WorkerCrew, server: Server
) -> None:
    assert len(examples()) > 20
    for example in examples():
        before = len(server.seen)
        with capture_logs() as logs:
            run = await _run(api, worker, example)
        try:
            await _check(api, run, example.wanted)
            _check_calls(server, before, example.wanted)
            logged = example.wanted.get("logged")
            assert logged is None or logged in [line["event"] for line in logs]
        except AssertionError as wrong:
            raise AssertionError(f"{example.wanted}: {wrong}\n{run.tasks}") from wrong


def test_every_block_is_an_example_or_a_command() -> None:
    for path, language, text in FENCE.findall(PAGE):
        assert path or language == "sh", text
    for example in examples():
        assert CHECKS.issuperset(example.wanted), example.wanted


def test_every_definition_is_run_by_an_example() -> None:
    parts = {(kind, str(item["name"])): json.dumps(item) for kind, item in definitions()}
    reached = {(example.kind, example.name) for example in examples()}
    assert reached <= set(parts)
    while True:
        text = " ".join(parts[part] for part in reached)
        more = {part for part in parts if f'"{part[1]}"' in text}
        if more <= reached:
            break
        reached |= more
    assert reached == set(parts)


@pytest.mark.parametrize(("written", "gives"), ROW.findall(PAGE.partition("### What `$` is")[0]))
def test_an_expression_of_the_table_gives_its_value(written: str, gives: str) -> None:
    [state] = STATE.findall(PAGE)
    state = json.loads(state.replace("\n", " "))
    assert evaluate(written, Scope(state, context=state)) == json.loads(gives)


def test_every_name_that_the_page_offers_to_expressions_exists_and_no_other() -> None:
    [offered] = re.findall(r"^There are `(len .*?)`", PAGE, re.DOTALL | re.MULTILINE)
    assert [n for n in offered.split() if compile_expression(f"{n}()").is_literal] == []
    [refused] = re.findall(r"There is no (`re`.*?),\s*`import`", PAGE, re.DOTALL)
    names = re.findall(r"`(\w+)`", refused)
    assert all(compile_expression(f"{name}.x()").is_literal for name in names)
    assert len(names) == 3


def test_the_table_of_expressions_has_rows() -> None:
    rows = ROW.findall(PAGE)
    assert len(rows) == PAGE.partition("<!-- expressions -->")[2].split("\n\n")[0].count("\n") - 2


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(links) >= 8
    missing = [link for link in links if not (Path(__file__).parents[2] / "docs" / link).exists()]
    assert missing == []


async def _run(api: Resources, worker: WorkerCrew, example: Example) -> Run:
    request = ask(
        "",
        kind=example.kind,
        target_name=example.name,
        inputs=example.wanted.get("with") or {},
        stream_workflows=example.kind == "agent",
    )
    submitted, _ = await api.runs.submit(request)
    await worker.execute(submitted.id)
    return await get_run(api, submitted)


async def _check(api: Resources, run: Run, wanted: Mapping[str, Any]) -> None:
    assert run.outcome is not None
    assert run.status == wanted.get("status", "executed"), run.outcome
    assert run.outcome.code == wanted.get("code")
    for key, value in (wanted.get("gives") or {}).items():
        assert (key, run.outcome.state[key]) == (key, value)
    if "content" in wanted:
        assert run.outcome.content == wanted["content"]
    if "tasks" in wanted:
        assert [[task["name"], task["status"]] for task in run.tasks] == wanted["tasks"]
    if "traced" in wanted:
        assert {key: run.tasks[0][key] for key in wanted["traced"]} == wanted["traced"]
    if "events" in wanted:
        told = types_of(await watch(api, run))
        assert list(dict.fromkeys(told)) == wanted["events"], told
    for name, count in (wanted.get("documents") or {}).items():
        found = await api.store.documents.find(PROJECT, {"name": name}, limit=100)
        assert (name, len(found)) == (name, count)
    if "schedules" in wanted:
        await _check_schedules(api, run.target_name, wanted["schedules"])


async def _check_schedules(api: Resources, agent: str, wanted: Mapping[str, Any]) -> None:
    definition = await api.store.definitions.get(PROJECT, "agent", agent)
    assert definition is not None
    plans = read_plans(definition, agent, definition.get("status"))
    assert {plan.name: plan.interval or plan.cron for plan in plans} == wanted
    assert all(plan.enabled and plan.error is None for plan in plans)


def _check_calls(server: Server, before: int, wanted: Mapping[str, Any]) -> None:
    calls = [
        [seen.method, seen.target, seen.headers.get("x-api-key"), seen.json if seen.body else None]
        for seen in list(server.seen)[before:]
    ]
    assert calls == (wanted.get("http") or [])

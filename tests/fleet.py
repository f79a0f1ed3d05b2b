"""Processes of a deployment inside one test: real Redis, real store, real engine, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from machina.cli.sample import load_sample
from machina.events import decode
from machina.ids import BEGINNING, EventId
from machina.observability.metrics import Metrics
from machina.observability.supervision import Supervisor
from machina.queue.names import Queue
from machina.resources import Resources, open_resources
from machina.runs.lifecycle import RunRequest
from machina.runs.run import Run
from machina.settings import Settings, load_settings
from machina.worker.app import Seat
from machina.worker.crew import WorkerCrew, open_crew
from machina.worker.providers import Providers
from tests.services import RedisServer

PROJECT = "default"


@pytest.fixture
def settings(tmp_path: Path, redis_server: RedisServer) -> Settings:
    """Settings of a deployment of the test's own."""
    return make_settings(tmp_path, redis_server.url)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Resources]:
    """An API process with the sample agent installed."""
    async with open_process(settings) as resources:
        await install_hello(resources)
        yield resources


@pytest.fixture
async def worker(settings: Settings, api: Resources) -> AsyncIterator[WorkerCrew]:
    """A worker process of the same deployment; tests call `execute` themselves."""
    async with open_worker(settings) as crew:
        yield crew


def make_settings(data_dir: Path, redis_url: str, **overrides: Any) -> Settings:
    """Settings of one deployment, independent of the test process's environment."""
    defaults: dict[str, Any] = {"data_dir": data_dir, "redis_url": redis_url, "environment": "dev"}
    return load_settings(**(defaults | overrides))


@asynccontextmanager
async def open_process(settings: Settings) -> AsyncIterator[Resources]:
    """An API process without its HTTP: what it shares, and its loops but the reaper's."""
    async with open_resources(settings, process="api") as resources, _loops(resources):
        yield resources


@asynccontextmanager
async def open_worker(
    settings: Settings,
    name: str = "worker-1",
    metrics: Metrics | None = None,
    make_providers: Callable[[Settings], Providers] = Providers,
) -> AsyncIterator[WorkerCrew]:
    """A worker process without its queue: tests call `execute` themselves."""
    async with AsyncExitStack() as stack:
        supervisor = Supervisor()
        stack.push_async_callback(supervisor.aclose)
        crew = await stack.enter_async_context(
            open_crew(Seat(settings, lambda: True, supervisor, metrics), make_providers)
        )
        crew.hold_as(name)
        for loop in ("writer", "cancel-listener", "cancel-watch"):
            supervisor.start(loop, crew.background[loop])
        yield crew


@asynccontextmanager
async def _loops(resources: Resources) -> AsyncIterator[None]:
    supervisor = Supervisor()
    supervisor.start("writer", resources.writer.run)
    supervisor.start("reader", resources.reader.run)
    try:
        yield
    finally:
        await supervisor.aclose()


async def install_hello(resources: Resources) -> None:
    """Installs the sample agent."""
    for kind, definition in await asyncio.to_thread(load_sample):
        await resources.store.definitions.save(PROJECT, kind, definition)  # type: ignore[arg-type]  # kinds are checked there


def ask(text: str, **fields: Any) -> RunRequest:
    """A request to stream `hello` with one message."""
    defaults: dict[str, Any] = {
        "project": PROJECT,
        "principal": "somebody",
        "kind": "agent",
        "target_id": "0" * 24,
        "target_name": "hello",
        "queue": Queue.STREAMING,
        "inputs": {"messages": [{"role": "user", "content": text}]},
        "streamed": True,
    }
    return RunRequest(**(defaults | fields))


async def watch(
    resources: Resources, run: Run, *, after: EventId = BEGINNING, until: str = "done"
) -> list[dict[str, Any]]:
    """The events of a run for a new viewer, up to the first of type `until`."""
    seen: list[dict[str, Any]] = []
    async with resources.viewing.open(run, after=after) as view:
        if view.at_end:
            return seen
        while True:
            for entry in await view.next(0.5):
                seen.append(decode(entry.data))
                if entry.type == until:
                    return seen


async def get_run(resources: Resources, run: Run) -> Run:
    """The record as it is now."""
    current = await resources.attempts.records.get(run.id)
    assert current is not None
    return current


async def until_status(resources: Resources, run: Run, *statuses: str) -> Run:
    """The record, once it has one of these statuses."""
    while True:
        current = await get_run(resources, run)
        if current.status in statuses:
            return current
        await asyncio.sleep(0.005)


def types_of(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """The types of events, runs of the same type folded into one."""
    folded: list[str] = []
    for event in events:
        if not folded or folded[-1] != event["type"]:
            folded.append(event["type"])
    return folded


def assert_sound(events: Sequence[Mapping[str, Any]]) -> None:
    """Ids rise, seq is dense in every attempt, and the only terminal event is the last."""
    ids = [EventId.parse(event["id"]) for event in events]
    before = EventId(ids[0].attempt, ids[0].seq - 1)
    for id in ids:
        follows = id == EventId(before.attempt, before.seq + 1)
        assert follows or (id.attempt > before.attempt and id.seq == 1), (before, id)
        before = id
    assert [event["type"] for event in events].count("done") == 1
    assert events[-1]["type"] == "done"


def shown_text(events: Sequence[Mapping[str, Any]]) -> str:
    """What a client shows in the end: pieces appended, final replaces, restart takes back."""
    text = ""
    for event in events:
        if event["type"] == "restart":
            text = event["metadata"]["content"]
        elif event["type"] == "content":
            text = event["content"] if event["metadata"].get("final") else text + event["content"]
    return text

"""The API with everything behind it real, and a hand that plays the worker as a test wants it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from machina.admission import Admission, AdmissionMiddleware
from machina.api.app import create_app
from machina.api.open_streams import OpenStreams
from machina.auth import Scope as KeyScope
from machina.eventlog import AttemptLog
from machina.events import Event
from machina.ids import EventId, RunId
from machina.observability.supervision import Supervisor
from machina.resources import Resources, open_resources
from machina.runs.closing import first_event
from machina.runs.run import Outcome, Run, RunStatus
from machina.settings import Settings
from tests.running import eventually

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
FAR_FUTURE = 3_600.0


def make_settings(directory: Path, redis_url: str, **changes: Any) -> Settings:
    """Settings of a small API process; the environment does not count."""
    return Settings(
        **{
            "data_dir": directory,
            "redis_url": redis_url,
            "redis_pubsub_url": redis_url,
            "environment": "dev",
            "drain_seconds": 0.2,
            "sync_wait_seconds": 5,
            **changes,
        }
    )


@dataclass
class Api:
    """One API process in this event loop."""

    app: FastAPI
    state: Mapping[str, Any]
    admin: str = ""
    client: str = ""
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def resources(self) -> Resources:
        resources: Resources = self.state["resources"]
        return resources

    @property
    def streams(self) -> OpenStreams:
        streams: OpenStreams = self.state["streams"]
        return streams

    @property
    def supervisor(self) -> Supervisor:
        supervisor: Supervisor = self.state["supervisor"]
        return supervisor

    @property
    def admission(self) -> Admission:
        (admission,) = (
            middleware.kwargs["admission"]
            for middleware in self.app.user_middleware
            if middleware.cls is AdmissionMiddleware  # type: ignore[comparison-overlap]  # a factory
        )
        assert isinstance(admission, Admission)
        return admission

    async def key(self, scope: KeyScope = KeyScope.CLIENT, project: str = "default") -> str:
        """A new key."""
        text, _ = await self.resources.keyring.create(scope, project=project)
        return text

    async def install(self, kind: Any, name: str, project: str = "default", **body: Any) -> str:
        """Adds a definition; returns its id."""
        return await self.resources.store.definitions.create(project, kind, {"name": name, **body})

    def calls(self, key: str | None = None, **options: Any) -> httpx.AsyncClient:
        """A client that calls the app directly; it sees an answer when all of it was sent."""
        headers = {} if key is None else {"X-Api-Token": key}
        transport = httpx.ASGITransport(self.in_process, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://api", headers=headers, **options
        )

    async def in_process(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app, with the state that a server would give it."""
        scope["state"] = dict(self.state)
        await self.app(scope, receive, send)


@asynccontextmanager
async def running_api(settings: Settings) -> AsyncIterator[Api]:
    """An API process with an agent `hello`, a workflow `greet`, an admin's and a client's key."""
    app = create_app(settings, partial(open_resources, process="api"))
    async with app.router.lifespan_context(app) as state:
        assert state is not None
        api = Api(app, state)
        api.admin = await api.key(KeyScope.ADMIN)
        api.client = await api.key()
        await api.install("agent", "hello", workflows=[{"name": "greet"}])
        await api.install("workflow", "greet", tasks=[])
        yield api


class LoopbackServer(uvicorn.Server):
    """A server in the test's own loop; leaves the signals of the test process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[str]:
    """The API on a real socket; yields its base URL."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            api.in_process,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            server_header=False,
            access_log=False,
        )
        server = LoopbackServer(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        await eventually(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


class Hand:
    """Plays the worker: claims a run and says what the test wants, when it wants."""

    def __init__(self, resources: Resources, run: Run) -> None:
        self._attempts = resources.attempts
        self.run = run
        self._log: AttemptLog = resources.attempts.open_log(run)

    async def say(self, *events: Event) -> EventId:
        """Appends events and waits until they are in the log; the id of the last."""
        last = EventId(0, 0)
        for event in events:
            last = await self._log.append(event)
        await self._log.flush()
        return last

    async def start(self) -> EventId:
        """Says the first word."""
        return await self.say(first_event(self.run))

    async def text(self, *pieces: str) -> EventId:
        """Says pieces of the answer."""
        return await self.say(*(Event("content", piece, {"partial": True}) for piece in pieces))

    async def finish(self, outcome: Outcome | None = None) -> Run:
        """Decides the end and publishes it."""
        outcome = outcome or Outcome(RunStatus.EXECUTED, content="Hello there")
        decided = await self._attempts.decide(self.run, outcome)
        await self._attempts.publish(decided, self._log)
        await self._attempts.records.mark_published(decided)
        self._log.close()
        return decided


async def claim(resources: Resources, run_id: str) -> Hand:
    """The hand for a waiting run."""
    run = await resources.attempts.claim(RunId(run_id), "w1")
    assert run is not None
    return Hand(resources, run)


async def next_hand(resources: Resources) -> Hand:
    """The hand for the next run that anybody starts."""
    while True:
        waiting = await resources.attempts.records.find({"status": "scheduled"}, limit=1)
        if waiting:
            return await claim(resources, waiting[0].id)
        await asyncio.sleep(0.005)


@asynccontextmanager
async def busy_worker(resources: Resources, *outcomes: Outcome) -> AsyncIterator[list[Run]]:
    """A worker that ends every run, with these outcomes in turn; yields what it claimed."""
    claimed: list[Run] = []
    idle = asyncio.Event()

    async def work() -> None:
        while True:
            idle.set()
            hand = await next_hand(resources)
            idle.clear()
            outcome = outcomes[len(claimed) % len(outcomes)] if outcomes else None
            claimed.append(hand.run)
            await hand.start()
            await hand.text("Hello ", "there")
            await hand.finish(outcome)

    task = asyncio.create_task(work())
    try:
        yield claimed
        await idle.wait()  # clients see the end before the worker has noted it
    finally:
        task.cancel()
        await asyncio.wait([task])


def routes_of(routes: Iterable[BaseRoute]) -> Iterator[Route]:
    """The routes among these and in the routers among these."""
    for route in routes:
        if isinstance(route, Route):
            yield route
        else:
            yield from routes_of(getattr(route, "routes", None) or route.original_router.routes)  # type: ignore[attr-defined]  # an included router


def lines(body: bytes) -> list[dict[str, Any]]:
    """The events of an NDJSON body; heartbeats are left out."""
    return [json.loads(line) for line in body.split(b"\n") if line]


def ids(body: bytes) -> list[str]:
    """The ids of an NDJSON body."""
    return [event["id"] for event in lines(body)]


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Checks the shape that every error has; returns the body."""
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert body["status"] == "error"
    assert body["data"] == {}
    assert (body["type"], body["error"]["id"]) == (f"/errors/{code}", code)
    assert (body["error"]["code"], body["meta"]["code"]) == (status, status)
    assert body["title"] == body["error"]["title"]
    assert body["detail"] == body["error"]["message"]
    assert body["meta"]["request_id"] == response.headers["x-request-id"]
    assert isinstance(body["error"]["retryable"], bool)
    return body

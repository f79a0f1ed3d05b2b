from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from machina.cli.listening import open_listener
from machina.cli.server import SAME_PRESS_SECONDS, Server
from machina.errors import StoreDown


class Resources:
    """What the server needs of the process's resources, and a way to wait for it."""

    def __init__(self) -> None:
        self.drain_began = asyncio.Event()

    @property
    def draining(self) -> bool:
        return self.drain_began.is_set()

    @draining.setter
    def draining(self, value: bool) -> None:
        assert value
        self.drain_began.set()


class SlowApp:
    """Answers each request with one byte at once and the rest when released."""

    def __init__(self) -> None:
        self.resources = Resources()
        self.released = asyncio.Event()
        self.closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["resources"] = self.resources
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.closed = True
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await self.released.wait()
        await send({"type": "http.response.body", "body": b"z"})


class Running:
    """A server under test, its clock and a way to ask it."""

    def __init__(self, drain_seconds: float) -> None:
        self.app = SlowApp()
        self.now = 100.0
        self.listening = asyncio.Event()
        self.server = Server(
            self.app,
            drain_seconds=drain_seconds,
            on_listening=self.listening.set,
            clock=lambda: self.now,
        )
        self.listener = open_listener("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.task = asyncio.create_task(self.server.serve([self.listener]))

    async def ask(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"a")
        return reader, writer

    def signal(self) -> None:
        self.server.handle_exit(signal.SIGINT, None)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running(drain_seconds=3600)
    await running.listening.wait()
    yield running
    running.server.force_exit = running.server.should_exit = True
    running.app.released.set()
    await running.task


async def test_an_idle_server_stops_at_the_first_signal(running: Running) -> None:
    running.signal()
    await running.task
    assert running.app.resources.draining
    assert running.app.closed
    assert not running.server.was_forced


async def test_an_open_response_may_finish_while_the_server_drains(running: Running) -> None:
    reader, writer = await running.ask()
    running.signal()
    await running.app.resources.drain_began.wait()
    second, closing = await running.ask()  # still answered: the app decides what it refuses
    assert not running.task.done()
    running.app.released.set()
    assert (await reader.read()).endswith(b"z\r\n0\r\n\r\n")
    assert (await second.read()).endswith(b"z\r\n0\r\n\r\n")
    await running.task
    assert running.app.closed
    writer.close()
    closing.close()


async def test_a_doubled_signal_is_one(running: Running) -> None:
    _, writer = await running.ask()
    running.signal()
    running.now += SAME_PRESS_SECONDS / 2
    running.signal()
    assert not running.server.should_exit
    running.now += SAME_PRESS_SECONDS
    running.signal()
    await running.task
    assert running.server.was_forced
    writer.close()


async def test_a_response_that_never_ends_is_cut_after_the_drain_time(running: Running) -> None:
    reader, writer = await running.ask()
    running.signal()
    running.now += 3600 + 2
    await running.task
    assert running.app.closed
    assert not running.server.was_forced
    assert not (await reader.read()).endswith(b"z\r\n0\r\n\r\n")
    writer.close()


async def test_the_signal_handlers_come_back_and_no_signal_is_raised_again(
    running: Running,
) -> None:
    assert signal.getsignal(signal.SIGTERM) == running.server.handle_exit
    running.signal()
    await running.task
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("error", "raised"), [(StoreDown("no store"), StoreDown), (OSError("a defect"), SystemExit)]
)
async def test_an_application_that_refuses_to_open_is_heard_and_a_defect_is_logged(
    error: Exception, raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        if app is not None:
            raise error
        yield

    server = Server(
        Starlette(lifespan=lifespan), drain_seconds=0, on_listening=lambda: pytest.fail("listens")
    )
    with open_listener("127.0.0.1", 0) as listener, pytest.raises(raised):
        await server.serve([listener])
    assert ("Traceback" in caplog.text) == (raised is SystemExit)

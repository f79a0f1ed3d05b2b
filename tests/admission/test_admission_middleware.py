"""Everything a request was given comes back, whatever way it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from machina.admission import Admission, AdmissionMiddleware, Gate, Handle, handle_of
from machina.breaker import Breaker, SharedBreaker, State
from machina.errors import BreakerOpen, Overloaded, TooManyViewers
from tests.running import eventually

Route = Callable[[Handle], Awaitable[None]]


def make_admission(capacity: int = 2, *, max_viewers: int = 100) -> Admission:
    clock = asyncio.get_running_loop().time
    return Admission(
        Gate(capacity, wait_seconds=0, clock=clock, random=lambda: 0.5),
        SharedBreaker(
            Breaker(
                "agent_streaming", threshold=2, cool_down_seconds=0, probe_seconds=20, clock=clock
            )
        ),
        max_viewers=max_viewers,
    )


async def serve(admission: Admission, route: Route, *, type: str = "http") -> Scope:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await route(handle_of(scope))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        del message

    scope: dict[str, Any] = {"type": type}
    await AdmissionMiddleware(app, admission)(scope, receive, send)
    return scope


def assert_nothing_is_held(admission: Admission) -> None:
    assert (admission.gate.active, admission.viewers, len(admission.closing)) == (0, 0, 0)


async def test_a_started_stream_holds_permit_and_viewers_place_until_its_last_byte() -> None:
    admission = make_admission()

    async def route(handle: Handle) -> None:
        await handle.start()
        assert (admission.gate.active, admission.viewers) == (1, 1)

    await serve(admission, route)
    assert_nothing_is_held(admission)


async def test_a_viewer_takes_no_permit() -> None:
    admission = make_admission(capacity=1)

    async def starter(handle: Handle) -> None:
        await handle.start()

        async def viewer(other: Handle) -> None:
            other.view()
            other.view()
            assert (admission.gate.active, admission.viewers) == (1, 2)

        await serve(admission, viewer)

    await serve(admission, starter)
    assert_nothing_is_held(admission)


async def test_one_viewer_too_many_is_refused_with_a_time_to_come_back() -> None:
    admission = make_admission(max_viewers=1)

    async def first(handle: Handle) -> None:
        handle.view()
        with pytest.raises(TooManyViewers) as refused:
            await serve(admission, second)
        assert refused.value.retry_after

    async def second(handle: Handle) -> None:
        handle.view()

    await serve(admission, first)
    assert_nothing_is_held(admission)


async def test_an_error_in_the_route_gives_everything_back() -> None:
    admission = make_admission()

    async def route(handle: Handle) -> None:
        await handle.start()
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await serve(admission, route)
    assert_nothing_is_held(admission)


async def test_a_refusal_by_the_gate_gives_the_probe_back() -> None:
    admission = make_admission(capacity=1)

    async def failing(handle: Handle) -> None:
        await handle.start()
        handle.failed()

    await serve(admission, failing)
    await serve(admission, failing)
    assert admission.breaker.snapshot().state is State.HALF_OPEN  # no cool-down in this test
    permit = await admission.gate.acquire()
    for _ in range(3):  # each is the probe, each is refused by the gate
        with pytest.raises(Overloaded):
            await serve(admission, failing)
    permit.release()

    async def working(handle: Handle) -> None:
        await handle.start()
        handle.succeeded()
        handle.failed()  # the first word counts

    await serve(admission, working)
    assert admission.breaker.snapshot().state is State.CLOSED


async def test_an_open_breaker_refuses_before_the_gate_is_asked() -> None:
    admission = make_admission()

    async def failing(handle: Handle) -> None:
        await handle.start()
        handle.failed()

    await serve(admission, failing)
    await serve(admission, failing)

    async def probe(handle: Handle) -> None:
        await handle.start()
        with pytest.raises(BreakerOpen):
            await serve(admission, second)
        assert admission.gate.active == 1

    async def second(handle: Handle) -> None:
        await handle.start()

    await serve(admission, probe)
    assert_nothing_is_held(admission)


async def test_held_contexts_are_closed_after_the_last_byte_in_reverse() -> None:
    admission, closed = make_admission(), []

    @asynccontextmanager
    async def context(name: str) -> AsyncIterator[str]:
        yield name
        await asyncio.sleep(0)
        closed.append(name)

    async def route(handle: Handle) -> None:
        assert await handle.hold(context("a")) == "a"
        assert await handle.hold(context("b")) == "b"
        assert not closed

    await serve(admission, route)
    assert closed == ["b", "a"]


async def test_held_contexts_are_closed_to_the_end_when_the_request_is_cancelled_twice() -> None:
    admission, closed = make_admission(), asyncio.Event()
    going_on = asyncio.Event()

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await going_on.wait()
            closed.set()

    async def route(handle: Handle) -> None:
        await handle.start()
        await handle.hold(slow())
        await asyncio.sleep(3600)

    task = asyncio.create_task(serve(admission, route))
    await eventually(lambda: admission.gate.active == 1)
    task.cancel()
    await asyncio.sleep(0)
    assert admission.gate.active == 0, "the permit does not wait for what is still closing"
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    going_on.set()
    await asyncio.wait_for(closed.wait(), 1)
    await asyncio.sleep(0)
    assert_nothing_is_held(admission)


async def test_what_fails_while_closing_is_logged_and_does_not_hide_the_answer() -> None:
    admission = make_admission()

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise RuntimeError("cannot close")

    async def route(handle: Handle) -> None:
        await handle.start()
        await handle.hold(broken())

    with capture_logs() as logs:
        await serve(admission, route)
    assert [line["event"] for line in logs] == ["admission.close_failed"]
    assert_nothing_is_held(admission)


async def test_other_kinds_of_scope_pass_untouched() -> None:
    admission, seen = make_admission(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        seen.append(dict(scope))

    async def nothing(*_: Any) -> Message:
        raise AssertionError

    await AdmissionMiddleware(app, admission)({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]  # never called
    assert seen == [{"type": "lifespan"}]


async def test_nothing_leaks_when_a_thousand_requests_end_in_random_ways() -> None:
    dice = random.Random(11)
    admission = make_admission(capacity=6, max_viewers=9)
    opened: list[int] = []

    @asynccontextmanager
    async def context(number: int) -> AsyncIterator[None]:
        opened.append(number)
        try:
            await asyncio.sleep(0)
            yield
        finally:
            await asyncio.sleep(0)
            opened.remove(number)

    def make_route(number: int) -> Route:
        async def route(handle: Handle) -> None:
            if dice.random() < 0.3:
                handle.view()
            else:
                await handle.start()
            await handle.hold(context(number))
            for _ in range(dice.randrange(5)):
                await asyncio.sleep(0)
            if dice.random() < 0.3:
                raise ConnectionResetError
            if dice.random() < 0.5:
                handle.succeeded()

        return route

    tasks: list[asyncio.Task[Scope]] = []
    for number in range(1_000):
        tasks.append(asyncio.create_task(serve(admission, make_route(number))))
        if dice.random() < 0.6:
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            dice.choice(tasks).cancel()
    endings = {type(end) for end in await asyncio.gather(*tasks, return_exceptions=True)}
    assert endings >= {asyncio.CancelledError, ConnectionResetError, Overloaded, TooManyViewers}
    await eventually(lambda: not admission.closing)
    assert_nothing_is_held(admission)
    assert opened == []

"""A background task that ends is noticed, makes the process unready, and runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from machina.observability.supervision import Supervisor


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- what is waited for has no event to set
            await asyncio.sleep(0.001)


class Loop:
    """A background function that counts its starts and can be told to end."""

    def __init__(self) -> None:
        self.starts = 0
        self.ends = 0
        self.end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.starts += 1
        self.end.clear()
        try:
            await self.end.wait()
        finally:
            self.ends += 1
        if self.error is not None:
            raise self.error


def make() -> Supervisor:
    return Supervisor(first_pause=0.01, longest_pause=0.04, settle=0.02)


async def test_a_task_starts_again_when_it_raised() -> None:
    supervisor, loop = make(), Loop()
    loop.error = ValueError("broken")
    with capture_logs() as logs:
        supervisor.start("reader", loop)
        await until(lambda: loop.starts == 1)
        loop.end.set()
        await until(lambda: loop.starts == 2)
    await supervisor.aclose()
    [line] = logs
    assert (line["event"], line["task"], line["log_level"]) == (
        "background.ended",
        "reader",
        "error",
    )
    assert line["exc_info"] is loop.error


@pytest.mark.parametrize("manner", ["returned", "cancelled"])
async def test_a_task_starts_again_when_it_ended_without_an_error(manner: str) -> None:
    supervisor, loop = make(), Loop()
    supervisor.start("reader", loop)
    await until(lambda: loop.starts == 1)
    if manner == "returned":
        loop.end.set()
    else:
        supervisor.tasks["reader"].cancel()
    await until(lambda: loop.starts == 2)
    await supervisor.aclose()


async def test_readiness_turns_false_when_a_task_ends_and_true_when_it_runs_again() -> None:
    supervisor, loop = make(), Loop()
    supervisor.start("reader", loop)
    await until(lambda: loop.starts == 1)
    assert supervisor.is_healthy
    loop.end.set()
    await until(lambda: not supervisor.is_healthy)
    assert supervisor.failing == ("reader",)
    await until(lambda: supervisor.is_healthy)
    assert loop.starts == 2
    await supervisor.aclose()


async def test_readiness_stays_false_while_a_task_cannot_stay_up() -> None:
    supervisor = Supervisor(first_pause=0.001, longest_pause=0.001, settle=0.5)
    starts = 0

    async def crash() -> None:
        nonlocal starts
        starts += 1
        assert starts == 1 or not supervisor.is_healthy
        raise ValueError("broken")

    with capture_logs() as logs:
        supervisor.start("writer", crash)
        await until(lambda: starts >= 10)
    assert not supervisor.is_healthy
    assert all(isinstance(line["exc_info"], ValueError) for line in logs)
    await supervisor.aclose()


async def test_pauses_grow_when_a_task_keeps_ending() -> None:
    supervisor = make()
    pauses: list[float] = []

    async def crash() -> None:
        raise ValueError("broken")

    with capture_logs() as logs:
        supervisor.start("writer", crash)
        await until(lambda: len(logs) >= 4)
    await supervisor.aclose()
    pauses = [line["restart_in_seconds"] for line in logs[:4]]
    assert pauses == [0.01, 0.02, 0.04, 0.04]


async def test_stopping_cancels_the_task_and_waits_for_its_end() -> None:
    supervisor, loop = make(), Loop()
    supervisor.start("reader", loop)
    await until(lambda: loop.starts == 1)
    await supervisor.stop("reader")
    assert loop.ends == 1
    assert supervisor.tasks == {}
    await supervisor.stop("reader")


async def test_closing_stops_everything_in_reverse_also_what_waits_to_start_again() -> None:
    ends: list[str] = []
    supervisor = Supervisor(first_pause=60.0)

    def make_loop(name: str) -> Callable[[], asyncio.Future[None]]:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(name)

        return lambda: asyncio.ensure_future(run())

    async def crash() -> None:
        raise ValueError("broken")

    supervisor.start("first", make_loop("first"))
    supervisor.start("crashed", crash)
    supervisor.start("last", make_loop("last"))
    await until(lambda: not supervisor.is_healthy)
    await supervisor.aclose()
    assert ends == ["last", "first"]
    assert supervisor.is_healthy


async def test_a_name_is_supervised_once() -> None:
    supervisor, loop = make(), Loop()
    supervisor.start("reader", loop)
    with pytest.raises(ValueError, match="already"):
        supervisor.start("reader", loop)
    await supervisor.aclose()

"""Viewers of the real reader on a real server, in random order with lost bells, cuts and losses.

Every viewer sees, from where it began, every entry that is in the log in the end, once and in
order, and beside these only entries that Redis was made to lose afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from machina.eventlog.clients import make_log_client
from machina.eventlog.keys import make_log_keys
from machina.eventlog.reader import EventLogReader, Subscription
from machina.eventlog.script import Batch, load_source, make_call
from machina.eventlog.tail import contiguous
from machina.events import Entry
from machina.ids import BEGINNING, EventId, RunId
from tests.services import RedisServer

KEYS = make_log_keys("reader-model")
RUN_NUMBERS = itertools.count(1)
T = TypeVar("T")


@dataclass
class Viewer:
    """One client and everything it was shown."""

    after: EventId
    subscription: Subscription
    stack: AsyncExitStack
    seen: list[Entry] = field(default_factory=list)


class ReaderMachine(RuleBasedStateMachine):
    """One run and its viewers in one process."""

    url: ClassVar[str]
    client: ClassVar[redis.Redis]
    sha: ClassVar[str]
    sweeps: ClassVar[bool]
    """With sweeps, bells may be lost; without, bells and reconnects alone must do."""

    def __init__(self) -> None:
        super().__init__()
        self.run = RunId(f"{next(RUN_NUMBERS):024x}")
        self.key = KEYS.events(self.run)
        self.log: list[Entry] = []
        self.top = EventId(1, 0)
        self.viewers: list[Viewer] = []
        self.runner = asyncio.Runner()
        self.commands = make_log_client(self.url)

    @initialize()
    def open(self) -> None:
        self._await(self._open())

    @rule(count=st.integers(1, 40), size=st.sampled_from((1, 1, 9_000)), heard=st.booleans())
    def say(self, count: int, size: int, heard: bool) -> None:
        """The run says something; the bell may be lost."""
        self._append(count, size, heard=heard)

    @rule(heard=st.booleans())
    def begin_attempt(self, heard: bool) -> None:
        """A new attempt begins."""
        self.top = EventId(self.top.attempt + 1, 0)
        self._append(1, 1, heard=heard)

    @precondition(lambda self: self.log)
    @rule(count=st.integers(1, 50), heard=st.booleans())
    def lose_tail(self, count: int, heard: bool) -> None:
        """Redis comes back with less, and a new attempt goes on."""
        self.log = self.log[:-count]
        self.client.delete(self.key, KEYS.fence(self.run))
        for entry in self.log:
            self.client.xadd(self.key, {"d": entry.data}, id=str(entry.id))
        self.begin_attempt(heard=heard)

    @precondition(lambda self: len(self.viewers) < 4)
    @rule(pick=st.integers(0, 200))
    def come(self, pick: int) -> None:
        """A client comes, at the beginning or with an id it may have."""
        after = self.log[pick % len(self.log)].id if pick and self.log else BEGINNING
        self._await(self._come(after))

    @precondition(lambda self: self.log)
    @rule()
    def come_ahead(self) -> None:
        """A client comes with an id of an old attempt that the log does not have (any more)."""
        if self.top.attempt > 1 and len(self.viewers) < 4:
            self._await(self._come(EventId(self.top.attempt - 1, 999_999_999)))

    @precondition(lambda self: self.viewers)
    @rule(pick=st.integers(0, 3), turns=st.integers(0, 12))
    def look(self, pick: int, turns: int) -> None:
        """A client asks for more, and may go away at any point of the answer."""
        self._await(self._look(self.viewers[pick % len(self.viewers)], turns))

    @precondition(lambda self: self.viewers)
    @rule(pick=st.integers(0, 3))
    def read(self, pick: int) -> None:
        """A client asks for more and waits a moment."""
        self._await(self._read(self.viewers[pick % len(self.viewers)], 0.005))

    @precondition(lambda self: self.viewers)
    @rule(count=st.integers(1, 40), turns=st.integers(0, 12), heard=st.booleans())
    def say_while_all_wait(self, count: int, turns: int, heard: bool) -> None:
        """All clients wait for what the run says next, and get it."""
        self._await(self._read_together(count, turns, heard=heard))

    @rule(turns=st.integers(1, 20))
    def go_on(self, turns: int) -> None:
        """Time passes, in single steps of the event loop."""
        self._await(_turn(turns))

    @rule(kind=st.sampled_from(("pubsub", "normal")))
    def cut(self, kind: str) -> None:
        """The reader loses connections."""
        self.client.client_kill_filter(_type=kind, skipme=True)

    @precondition(lambda self: len(self.viewers) > 1)
    @rule(pick=st.integers(0, 3))
    def leave(self, pick: int) -> None:
        """A client goes away."""
        viewer = self.viewers.pop(pick % len(self.viewers))
        self._await(viewer.stack.aclose())

    @invariant()
    def every_viewer_sees_a_log_without_holes(self) -> None:
        for viewer in self.viewers:
            assert contiguous(viewer.after, viewer.seen) == len(viewer.seen)
            for entry in viewer.seen:
                assert entry.data.startswith(f"{entry.id} ".encode())

    def teardown(self) -> None:
        """In the end every viewer has seen all there is, without another bell."""
        try:
            self.begin_attempt(heard=False)
            self._await(asyncio.wait_for(self._finish(), 3))
            kept = {entry.id for entry in self.log}
            for viewer in self.viewers:
                expected = [entry for entry in self.log if entry.id > viewer.after]
                assert [entry for entry in viewer.seen if entry.id in kept] == expected
        finally:
            self._await(self._close())
            self.runner.close()
            self.client.delete(self.key, KEYS.fence(self.run))

    # The parts -----------------------------------------------------------------------------------

    def _await(self, action: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(action)

    def _append(self, count: int, size: int, *, heard: bool) -> None:
        first = self.top.seq + 1
        ids = [EventId(self.top.attempt, seq) for seq in range(first, first + count)]
        entries = [Entry(id, f"{id} ".encode() + b"x" * size) for id in ids]
        lines = [entry.data for entry in entries]
        batch = Batch(self.run, self.top.attempt, first, lines, False, False, 60_000, 60_000)
        names, arguments = make_call(KEYS, [batch])
        if self.sweeps and not heard:
            arguments[0] = "nobody listens here"
        answers: Any = self.client.evalsha(self.sha, len(names), *names, *arguments)
        assert answers == [b"OK"]
        self.top = ids[-1]
        self.log += entries

    async def _open(self) -> None:
        sweep_seconds = 0.05 if self.sweeps else 1_000
        self.reader = EventLogReader(self.commands, KEYS, sweep_seconds=sweep_seconds)
        self.task = asyncio.create_task(self.reader.run())

    async def _come(self, after: EventId) -> None:
        stack = AsyncExitStack()
        subscription = await stack.enter_async_context(self.reader.subscribe(self.run, after=after))
        self.viewers.append(Viewer(after, subscription, stack))

    async def _look(self, viewer: Viewer, turns: int) -> None:
        reading = asyncio.create_task(self._read(viewer, 1))
        await _turn(turns)
        reading.cancel()
        await asyncio.wait([reading])

    async def _read(self, viewer: Viewer, seconds: float) -> None:
        viewer.seen += await viewer.subscription.next(seconds)
        viewer.subscription.take_disturbed()

    async def _read_together(self, count: int, turns: int, *, heard: bool) -> None:
        reading = [asyncio.create_task(self._read_to_top(viewer)) for viewer in self.viewers]
        await _turn(turns)
        self._append(count, 1, heard=heard)
        async with asyncio.timeout(3):
            await asyncio.gather(*reading)

    async def _read_to_top(self, viewer: Viewer) -> None:
        await asyncio.sleep(0)
        while viewer.subscription.cursor < self.top:
            await self._read(viewer, 60)  # never to be waited out: somebody must wake it

    async def _finish(self) -> None:
        await asyncio.gather(*(self._read_to_top(viewer) for viewer in self.viewers))
        assert not self.task.done()

    async def _close(self) -> None:
        for viewer in self.viewers:
            await viewer.stack.aclose()
        assert self.reader.open_streams == 0
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.commands.aclose()


async def _turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("sweeps", [True, False], ids=["bells are lost", "no sweeps"])
def test_viewers_see_everything_once_and_in_order_whatever_happens(
    redis_server: RedisServer, sweeps: bool
) -> None:
    with redis_server.connect() as client:
        ReaderMachine.sweeps = sweeps
        ReaderMachine.url = redis_server.url
        ReaderMachine.client = client
        ReaderMachine.sha = str(client.script_load(load_source()))
        run_state_machine_as_test(
            ReaderMachine,
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate, Phase.shrink],
            ),
        )

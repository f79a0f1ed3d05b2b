"""A client that watches runs to their end, leaves at random and comes back where it likes.

It is as simple as a client can be: it keeps every line in the order in which it came, and resumes
after the id of the last one. Nothing is sorted, merged or thrown away, so that what the servers do
wrong stays visible.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final

import aiohttp

from bench.chaos.plan import Habits, RunPlan
from bench.chaos.seen import Connection, Ending, How, Line, Watch, is_done

CONNECT_SECONDS: Final = 3.0
CANCEL_TRIES: Final = 40
REFUSED_PAUSE: Final = 0.05
ELSEWHERE: Final = 0.7
"""The share of returns that avoid the instance they come from."""


class Place:
    """The deployment as clients know it: URLs, a key, and which connections are open where."""

    def __init__(self, urls: Sequence[str], key: str) -> None:
        self.urls = list(urls)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._open: dict[int, int] = {}
        self.arrivals = 0
        """Lines that came so far, over all clients."""

    @asynccontextmanager
    async def session(self, silence_seconds: float) -> AsyncIterator[aiohttp.ClientSession]:
        """A session without a limit of connections, each of which serves one request."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds
        )
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=timeout, read_bufsize=2**16
        ) as session:
            yield session

    def open_on(self, instance: int) -> int:
        """How many streams clients have open on an API."""
        return self._open.get(instance, 0)

    @contextmanager
    def opened(self, instance: int) -> Iterator[None]:
        """Counts one open stream."""
        self._open[instance] = self._open.get(instance, 0) + 1
        try:
            yield
        finally:
            self._open[instance] -= 1


class Client:
    """One client. Use it for one run at a time."""

    def __init__(
        self, place: Place, session: aiohttp.ClientSession, habits: Habits, dice: random.Random
    ) -> None:
        self._place = place
        self._session = session
        self._habits = habits
        self._dice = dice
        self._instance = dice.randrange(len(place.urls))
        self._refusals = 0

    async def watch(self, plan: RunPlan, watch: Watch | None = None) -> Watch:
        """Starts a run (or returns to one) and sees it through; gives up after `run_seconds`."""
        watch = watch or Watch(plan, began=time.monotonic())
        cancel: asyncio.Task[None] | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._habits.run_seconds):
                while watch.ended is None:
                    connection = self.new_connection(watch)
                    async for _ in self.read(watch, connection):
                        if cancel is None and self._wants_cancel(watch):
                            cancel = asyncio.create_task(self._cancel(watch))
                    if watch.ended is None:
                        await asyncio.sleep(self._pause(connection))
                        self._instance = self._next_instance()
        if cancel is not None:
            await cancel
        return watch

    async def read(self, watch: Watch, connection: Connection) -> AsyncIterator[Line]:
        """Opens a connection and yields its lines; keeps what happened in `watch`."""
        try:
            async with self._request(watch.plan, watch.run_id, connection) as response:
                connection.answered = time.monotonic()
                connection.status = response.status
                connection.retry_after = response.headers.get("Retry-After")
                connection.run_id = response.headers.get("X-Run-Id")
                if response.status != 200:
                    connection.ending = Ending.ANSWERED
                    connection.said = (await response.text())[:500]
                    return
                self._refusals = 0
                watch.run_id = watch.run_id or connection.run_id or ""
                with self._place.opened(connection.instance):
                    async for line in self._lines(watch, connection, response):
                        yield line
        except asyncio.CancelledError:
            connection.ending = Ending.DROPPED
            raise
        except TimeoutError:
            connection.ending = Ending.SILENT
        except (aiohttp.ClientError, OSError):
            connection.ending = Ending.CUT if connection.status == 200 else Ending.REFUSED
        finally:
            connection.closed = time.monotonic()
            if connection.done is not None:
                watch.ended = connection.closed

    async def _lines(
        self, watch: Watch, connection: Connection, response: aiohttp.ClientResponse
    ) -> AsyncIterator[Line]:
        index = len(watch.connections) - 1
        while True:
            async with asyncio.timeout_at(self._latest_end(connection)):
                chunk = await response.content.readany()
            if not chunk:
                break
            at = time.monotonic()
            *pieces, connection.rest = (connection.rest + chunk).split(b"\n")
            for piece in filter(None, pieces):
                line = Line(piece, at, index)
                watch.lines.append(line)
                self._place.arrivals += 1
                connection.first_event = connection.first_event or at
                if is_done(piece):
                    connection.done = at
                yield line
                if connection.done is None and self._dice.random() < self._habits.drop_share:
                    connection.ending = Ending.DROPPED
                    connection.rest = b""
                    self._leave(response)
                    return
        connection.ending = Ending.CLEAN if connection.done is None else Ending.DONE

    def _latest_end(self, connection: Connection) -> float | None:
        """When a body that said `done` must be over, as the loop counts time."""
        if connection.done is None:
            return None
        late = connection.done + self._habits.linger_seconds
        return asyncio.get_running_loop().time() + late - time.monotonic()

    def _leave(self, response: aiohttp.ClientResponse) -> None:
        """Closes, or breaks off: the other side sees a FIN or, with data unread, a reset."""
        if self._dice.random() < 0.5 and response.connection is not None:
            transport = response.connection.transport
            if transport is not None:
                transport.abort()
        response.close()

    def _request(self, plan: RunPlan, run_id: str, connection: Connection) -> Any:
        url = self._place.urls[connection.instance]
        if connection.how is How.RESUME:
            path = f"{url}/execution/agent-run/{run_id}/stream"
            if connection.after is not None and self._dice.random() < 0.5:
                return self._session.get(path, params={"after": connection.after})
            return self._session.get(path, headers=_last_id(connection.after))
        headers = {"Idempotency-Key": plan.key} | _last_id(connection.after)
        return self._session.post(f"{url}/agent/stream/hello", json=plan.body, headers=headers)

    def new_connection(self, watch: Watch) -> Connection:
        """The next request for a run's stream, noted in its watch; `read` makes it."""
        how = How.START
        if watch.run_id:
            rejoin = self._dice.random() < self._habits.rejoin_share
            how = How.REJOIN if rejoin else How.RESUME
        connection = Connection(self._instance, how, watch.last_id, time.monotonic())
        watch.connections.append(connection)
        return connection

    def _pause(self, connection: Connection) -> float:
        """How long to stay away after a connection ended as it did, in seconds."""
        if connection.ending is Ending.DROPPED:
            return self._dice.random() * self._habits.away_seconds
        if connection.ending in (Ending.REFUSED, Ending.ANSWERED):
            self._refusals += 1
            everywhere = self._refusals % len(self._place.urls) == 0
            if connection.ending is Ending.ANSWERED and everywhere:
                return _seconds(connection.retry_after, self._habits.longest_wait)
            return REFUSED_PAUSE * (1 + self._dice.random())
        return self._dice.random() * 4 * REFUSED_PAUSE

    def _next_instance(self) -> int:
        others = [n for n in range(len(self._place.urls)) if n != self._instance]
        must_move = self._refusals > 0
        if others and (must_move or self._dice.random() < ELSEWHERE):
            return self._dice.choice(others)
        return self._instance

    def _wants_cancel(self, watch: Watch) -> bool:
        after = watch.plan.cancel_after
        return after is not None and len(watch.lines) > after

    async def _cancel(self, watch: Watch) -> None:
        """Asks for the cancel until it is answered."""
        watch.cancel_sent = time.monotonic()
        for number in range(CANCEL_TRIES):
            url = self._place.urls[(self._instance + number) % len(self._place.urls)]
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with self._session.post(
                    f"{url}/execution/agent-run/{watch.run_id}/cancel"
                ) as response:
                    if response.status == 200:
                        watch.cancel_answered = time.monotonic()
                        return
                    if response.status not in (429, 503):
                        watch.trouble.append(f"cancel was answered {response.status}")
                        return
            await asyncio.sleep(REFUSED_PAUSE * (1 + number % 10))


def _last_id(after: str | None) -> dict[str, str]:
    return {} if after is None else {"Last-Event-ID": after}


def _seconds(retry_after: str | None, most: float) -> float:
    try:
        return min(max(float(retry_after or 1), 0.0), most)
    except ValueError:
        return most

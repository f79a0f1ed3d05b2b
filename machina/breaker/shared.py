"""The breaker of the whole fleet: its state is in Redis, and local while Redis is what is down.

Closed is the common case and costs nothing: a process admits by what it last heard, at most a
second ago. Only an open or half-open breaker asks Redis per request, which lets one probe through
in the whole fleet. While Redis does not answer, the process goes by a breaker of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from machina.breaker.machine import Breaker, Snapshot, State, Ticket, refusal

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.0
_STATES: Final = (State.CLOSED, State.OPEN, State.HALF_OPEN)
_ANY_PERIOD: Final = -1


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What Redis said last."""

    admitted: int
    wait_ms: int
    failures: int
    state: State
    period: int


class SharedBreaker:
    """One circuit of a deployment, as one process sees it. `run` keeps its view fresh."""

    def __init__(self, local: Breaker, client: Redis | None = None, key: str = "") -> None:
        """Without a `client` this process is the whole fleet."""
        self.name = local.name
        self._local = local
        self._client = client
        self._key = key
        self._sha: str | None = None
        self._fleet: _Fleet | None = None
        """None while Redis does not answer, and before it was asked."""
        self._reports: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Looks at the fleet's state every second until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Asks for the fleet's state now."""
        await self._ask("look")

    async def admit(self) -> Ticket:
        """Lets a request through.

        Raises:
            BreakerOpen: with the seconds until it is worth trying again.
        """
        known = self._fleet
        if known is None:
            return self._local.admit()
        if known.state is State.CLOSED:
            return Ticket(known.period, probe=False)
        fleet = await self._ask("admit")
        if fleet is None:
            return self._local.admit()
        if fleet.admitted == 0:
            raise refusal(self.name, fleet.failures, fleet.wait_ms / 1000)
        return Ticket(fleet.period, probe=fleet.admitted == 2)

    def success(self, ticket: Ticket) -> None:
        """The request got what it needed: a probe closes the breaker."""
        if self._fleet is None:
            self._local.success(ticket)
        elif ticket.probe or self._fleet.failures:
            self._spawn(self._report("success", ticket))

    def failure(self, ticket: Ticket) -> None:
        """The request failed for a reason of the server."""
        if self._fleet is None:
            self._local.failure(ticket)
        else:
            self._spawn(self._fail(ticket))

    def release(self, ticket: Ticket) -> None:
        """The request ended without a verdict; a probe makes room for the next at once."""
        if self._fleet is None:
            self._local.release(ticket)
        elif ticket.probe:
            self._spawn(self._report("release", ticket))

    def run_failed(self) -> None:
        """A run failed for a reason of the infrastructure, wherever it was started."""
        self._spawn(self._fail(Ticket(_ANY_PERIOD, probe=False)))

    async def reset(self) -> None:
        """Closes the breaker by hand, for the whole fleet."""
        self._local.reset()
        await self._ask("reset")

    @property
    def state(self) -> State:
        """Where the breaker stands."""
        return self.snapshot().state

    def snapshot(self) -> Snapshot:
        """State, failures in a row and threshold: the fleet's, or our own while Redis is away."""
        own = self._local.snapshot()
        if self._fleet is None:
            return own
        return Snapshot(self._fleet.state, self._fleet.failures, own.threshold)

    async def settle(self) -> None:
        """Waits until every verdict given so far has arrived, or could not."""
        while self._reports:
            await asyncio.wait(list(self._reports))

    async def _fail(self, ticket: Ticket) -> None:
        if await self._ask("failure", ticket) is None:
            self._local.fail()

    async def _report(self, command: str, ticket: Ticket) -> None:
        await self._ask(command, ticket)

    async def _ask(self, command: str, ticket: Ticket = Ticket(0, probe=False)) -> _Fleet | None:  # noqa: B008  # an immutable value
        if self._client is None:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._call(command, ticket)
        except (RedisError, OSError, TimeoutError) as error:
            if self._fleet is not None:
                log.warning("breaker.redis_down", name=self.name, error=str(error))
            self._fleet = None
            return None
        admitted, wait_ms, failures, state, period = answer
        if self._fleet is None or self._fleet.period != period:
            self._local.reset()  # what we counted alone is history
        if self._fleet is not None and self._fleet.state is not _STATES[state]:
            log.warning("breaker.changed", name=self.name, state=str(_STATES[state]))
        self._fleet = _Fleet(admitted, wait_ms, failures, _STATES[state], period)
        return self._fleet

    async def _call(self, command: str, ticket: Ticket) -> list[int]:
        threshold, cool_down, probe = self._local.limits
        arguments = (
            *(1, self._key, command, ticket.period, int(ticket.probe), threshold),
            *(int(cool_down * 1000), int(probe * 1000)),
        )
        client: Any = self._client
        if self._sha is not None:
            try:
                answer: list[int] = await client.evalsha(self._sha, *arguments)
            except NoScriptError:
                self._sha = None
            else:
                return answer
        text = await asyncio.to_thread(_script)
        self._sha = await client.script_load(text)
        loaded: list[int] = await client.evalsha(self._sha, *arguments)
        return loaded

    def _spawn(self, report: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(report)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)


def _script() -> str:
    return (files("machina.breaker") / "shared.lua").read_text("utf-8")

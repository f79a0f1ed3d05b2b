"""The connection of one event loop to MongoDB: limits in time and number, first contact, clock.

Nothing is asked of the server before the first call, so a process starts without it. Every call
waits a bounded time for its turn and for its answer, and fails with errors of the store alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import split_options

from machina.errors import SettingsInvalid, StoreDown
from machina.settings import mask_password
from machina.store.mongo_clock import ServerClock
from machina.store.mongo_errors import DRIVER_ERRORS, ServerRefused, TookTooLong, named
from machina.store.mongo_setup import create_indexes, is_faithful
from machina.store.mongo_shared import Shared

DEFAULT_DATABASE: Final = "machina"
SELECTION_SECONDS: Final = 3.0
"""How long a call waits for a server that takes writes."""
CONNECT_SECONDS: Final = 3.0
QUERY_SECONDS: Final = 5.0
"""How long the server may work on one query."""
SOCKET_SECONDS: Final = 7.0
"""How long a connection may stay silent: longer than any query may take."""
CONFIRM_SECONDS: Final = 5.0
CALL_SECONDS: Final = 10.0
"""A call's longest time in all: first contact, its turn, the one repetition of the driver."""
CALLS_AT_ONCE: Final = 16
SCANS_AT_ONCE: Final = 4
"""Readers of many records at once; the others always find room beside them."""
CLOSE_SECONDS: Final = 1.0

Result = TypeVar("Result")


def connect(
    url: str, loop: asyncio.AbstractEventLoop, *, selection_seconds: float | None = None
) -> Any:
    """A client of the driver for an event loop. Asks the server nothing; reads files, so blocking.

    A write counts once a majority of the members has it in its journal, unless the URL says
    otherwise. Reads go to the primary whatever the URL says: what was written must be seen.

    Raises:
        SettingsInvalid: the driver does not understand the URL.
    """
    confirmed: dict[str, Any] = {
        "w": "majority",
        "journal": True,
        "wTimeoutMS": _milliseconds(CONFIRM_SECONDS),
    }
    query = urlsplit(url).query
    try:
        given = {name.lower() for name in split_options(query)} if query else set()  # strictly
        return AsyncIOMotorClient(
            url,
            io_loop=loop,
            serverSelectionTimeoutMS=_milliseconds(selection_seconds or SELECTION_SECONDS),
            connectTimeoutMS=_milliseconds(CONNECT_SECONDS),
            socketTimeoutMS=_milliseconds(SOCKET_SECONDS),
            waitQueueTimeoutMS=_milliseconds(CONNECT_SECONDS),
            maxPoolSize=CALLS_AT_ONCE,
            readPreference="primary",
            appname="machina",
            tz_aware=True,
            tzinfo=UTC,
            **{name: v for name, v in confirmed.items() if name.lower() not in given},
        )
    except (ConfigurationError, InvalidURI, ValueError, TypeError):
        raise SettingsInvalid(
            f"MONGODB_URL={mask_password(url)}: not an address of MongoDB. Write it like "
            "mongodb://user:password@host:27017/machina, with special characters in user and "
            "password escaped as in any URL."
        ) from None


Probe = Callable[[Any], Awaitable[bool]]


class Connection:
    """Calls a database on the event loop that it was made on.

    Args:
        client: made by `connect`.
        probe: finds out whether the server of a database means what MongoDB means.
    """

    def __init__(self, client: Any, *, probe: Probe = is_faithful) -> None:
        self._probe = probe
        self._client = client
        self.database = client.get_default_database(DEFAULT_DATABASE)
        self._scans = asyncio.Semaphore(SCANS_AT_ONCE)
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._contact = Shared(self._make_contact)
        self._clock = ServerClock(self._ask_time)
        self._closed = False

    async def call(self, collection: str, action: Callable[[], Awaitable[Result]]) -> Result:
        """What `action` answers, which awaits the driver once.

        Raises:
            Duplicate: a unique key is taken.
            Invalid: a record that MongoDB cannot keep.
            ServerRefused: the server does not do such a thing.
            TookTooLong: the server gave up.
            StoreDown: no answer; whether something was written is then not known.
        """
        async with self._bounded():
            await self._contact.get()
            async with self._calls:
                try:
                    return await action()
                except DRIVER_ERRORS as error:
                    raise named(error, collection) from error

    async def is_faithful(self) -> bool:
        """Whether the server means by queries what MongoDB means; makes the first contact."""
        async with self._bounded():
            return await self._contact.get()

    @asynccontextmanager
    async def scanning(self) -> AsyncIterator[None]:
        """A turn to read through many records, in calls of their own."""
        async with self._bounded():
            await self._scans.acquire()
        try:
            yield
        finally:
            self._scans.release()

    async def now(self) -> datetime:
        """The server's clock. An answer that is five seconds old is not relied upon."""
        async with self._bounded():
            return await self._clock.now()

    async def close(self) -> None:
        """Closes all connections. A server that does not answer is not waited for."""
        self._closed = True
        loop = asyncio.get_running_loop()
        closed = loop.create_future()
        threading.Thread(target=_close, args=(self._client, loop, closed), daemon=True).start()
        await asyncio.wait([closed], timeout=CLOSE_SECONDS)
        await self._contact.aclose()
        await self._clock.aclose()

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        if self._closed:
            raise StoreDown("The store is closed.")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
        except TimeoutError:
            self._suspect()
            raise StoreDown(f"MongoDB did not answer within {CALL_SECONDS:g} s.") from None
        except (ServerRefused, TookTooLong):
            raise
        except StoreDown:
            self._suspect()
            raise

    def _suspect(self) -> None:
        """After a failure it may be another server: first contact and clock begin anew."""
        self._contact.forget()
        self._clock.forget()

    async def _make_contact(self) -> bool:
        async with self._bounded(), self._calls:
            try:
                faithful = await self._probe(self.database)
                await create_indexes(self.database, faithful=faithful)
            except DRIVER_ERRORS as error:
                raise named(error, "") from error
        return faithful

    async def _ask_time(self) -> datetime:
        hello = await self.call("", lambda: self.database.command("hello"))
        told: datetime = hello["localTime"]
        return told if told.tzinfo is not None else told.replace(tzinfo=UTC)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _close(client: Any, loop: asyncio.AbstractEventLoop, closed: asyncio.Future[None]) -> None:
    client.close()
    with suppress(RuntimeError):  # the loop did not wait and is gone
        loop.call_soon_threadsafe(_settle, closed)


def _settle(closed: asyncio.Future[None]) -> None:
    if not closed.done():
        closed.set_result(None)

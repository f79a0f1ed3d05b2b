"""The store in one local SQLite file, safe for several processes, loops and threads at once.

WAL mode: readers never wait for the writer. Each opened backend has one writing thread and up to
three reading threads, started on demand. SQL narrows a query down by `_id` and indexed fields
(plans.py); the exact test of matching.py decides about whatever SQL cannot.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from machina.errors import SettingsInvalid
from machina.store.base import Change, Query, Record, Sort
from machina.store.changes import compile_change, start_record
from machina.store.indexes import COLLECTIONS
from machina.store.lanes import MAX_BATCH, Lane, read_jobs, write_jobs
from machina.store.scans import Scan
from machina.store.tables import Table
from machina.store.values import as_utc, decode

FILE_NAME: Final = "store.sqlite3"
SCHEMA_VERSION: Final = 1
"""Rises when an older program would misread the file."""
SCANNERS: Final = 2
BUSY_SECONDS: Final = 5.0
_CACHE_KIB: Final = 8_192


@asynccontextmanager
async def open_embedded(
    directory: Path, *, busy_seconds: float = BUSY_SECONDS
) -> AsyncIterator[EmbeddedBackend]:
    """The store in `directory`, which is made if need be, with rights for its owner only.

    Args:
        directory: where the file `store.sqlite3` lives.
        busy_seconds: how long to wait for another process that is writing.

    Raises:
        SettingsInvalid: the directory cannot be used, or the file is of a newer program.
        StoreDown: the file cannot be read.
    """
    reader = partial(_connect_reader, directory, busy_seconds)
    lanes = _Lanes(
        looking=Lane("look", reader, read_jobs, threads=1, batch=MAX_BATCH),
        scanning=Lane("scan", reader, read_jobs, threads=SCANNERS, batch=1),
        writing=Lane(
            "write",
            partial(_connect_writer, directory, busy_seconds),
            write_jobs,
            threads=1,
            batch=MAX_BATCH,
        ),
    )
    try:
        await lanes.writing.run(_create_tables)
        yield EmbeddedBackend(lanes)
    finally:
        for lane in lanes:
            await lane.close()


class _Lanes(NamedTuple):
    """Where jobs wait: single records, what may take long, changes. The last closed is the writer.

    Threads that share the interpreter gain nothing from looking up single records side by side: one
    thread that answers many at once takes a quarter of the time.
    """

    looking: Lane
    scanning: Lane
    writing: Lane


class EmbeddedBackend:
    """A `Backend`; usable from the event loop it was opened on."""

    def __init__(self, lanes: _Lanes) -> None:
        self._collections = {name: EmbeddedCollection(Table(name), lanes) for name in COLLECTIONS}

    def collection(self, name: str) -> EmbeddedCollection:
        """The collection of this name; `KeyError` for one that is not declared."""
        return self._collections[name]

    async def now(self) -> datetime:
        """The clock of this machine, in UTC, to the millisecond."""
        return as_utc(datetime.now(UTC))


class EmbeddedCollection:
    """A `Collection` whose every call is one job on a thread; see there for what each does."""

    upserts_once = True

    def __init__(self, table: Table, lanes: _Lanes) -> None:
        self._table = table
        self._lanes = lanes

    async def insert(self, record: Record) -> None:
        await self._lanes.writing.run(lambda connection: self._table.insert(connection, record))

    async def get(self, id: str) -> Record | None:
        return await self._lanes.looking.run(lambda connection: self._table.get(connection, id))

    async def find(
        self,
        query: Query,
        *,
        sort: Sort = (),
        skip: int = 0,
        limit: int | None = None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        names_one = isinstance(query, Mapping) and isinstance(query.get("_id"), str)
        lane = self._lanes.looking if names_one else self._lanes.scanning
        return await lane.run(
            lambda connection: Scan(self._table, query, sort).find(connection, skip, limit, fields)
        )

    async def nearest(
        self, query: Query, path: str, vector: bytes, *, index: str, limit: int
    ) -> list[tuple[str, float]] | None:
        return None

    async def count(self, query: Query) -> int:
        return await self._lanes.scanning.run(
            lambda connection: Scan(self._table, query).count(connection)
        )

    async def find_and_update(
        self, query: Query, change: Change, *, sort: Sort = (), upsert: bool = False
    ) -> Record | None:
        def work(connection: sqlite3.Connection) -> Record | None:
            apply = compile_change(change)
            found = Scan(self._table, query, sort).first(connection)
            if found is not None:
                doc = self._table.update(connection, found, apply(found))
            elif upsert:
                doc = self._table.insert(connection, apply(start_record(query), inserting=True))
            else:
                return None
            return decode(doc.encode())

        return await self._lanes.writing.run(work)

    async def update_many(self, query: Query, change: Change) -> int:
        def work(connection: sqlite3.Connection) -> int:
            apply = compile_change(change)
            return Scan(self._table, query).each(
                connection, lambda record: self._table.update(connection, record, apply(record))
            )

        return await self._lanes.writing.run(work)

    async def delete(self, query: Query) -> int:
        return await self._lanes.writing.run(
            lambda connection: Scan(self._table, query).each(
                connection, lambda record: self._table.delete(connection, record["_id"])
            )
        )


def _connect_writer(directory: Path, busy_seconds: float) -> sqlite3.Connection:
    path = directory / FILE_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's side files inherit this
    except OSError as error:
        raise SettingsInvalid(
            f"MACHINA_DATA_DIR={directory}: the store cannot be kept there ({error.strerror}); "
            "name a directory that this user may write."
        ) from None
    connection = _connect(path, busy_seconds)
    _enter_wal_mode(connection, busy_seconds)
    return connection


def _connect_reader(directory: Path, busy_seconds: float) -> sqlite3.Connection:
    connection = _connect(directory / FILE_NAME, busy_seconds)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, cached_statements=256
    )
    connection.text_factory = bytes  # the records' text goes to the JSON decoder as it is
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _enter_wal_mode(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Switches the file to WAL; SQLite does not wait here when two processes do so at once."""
    give_up = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                connection.close()
                raise
            time.sleep(0.01)
        else:
            return


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS machina_schema (version INTEGER NOT NULL)")
    row = connection.execute("SELECT version FROM machina_schema").fetchone()
    if row is None:
        connection.execute("INSERT INTO machina_schema VALUES (?)", (SCHEMA_VERSION,))
    elif row[0] > SCHEMA_VERSION:
        raise SettingsInvalid(
            f"MACHINA_DATA_DIR: the store there has version {row[0]}, made by a newer program; "
            f"this one knows version {SCHEMA_VERSION}. Update it or name another directory."
        )
    for name in COLLECTIONS:
        Table(name).create(connection)

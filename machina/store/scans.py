"""Finds records in a table: SQL narrows, the exact test decides, no more is held than wanted."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import Final

from machina.store.base import Query, QueryRefused, Record, Sort
from machina.store.matching import compile_query
from machina.store.ordering import RecordOrder, check_field
from machina.store.paths import project, split_path
from machina.store.plans import plan_order, plan_query
from machina.store.tables import Table
from machina.store.values import decode

MAX_SCAN_SECONDS: Final = 5.0
"""CPU time that one query may spend on records that SQL could not decide about."""
_LOOK_EVERY: Final = 64
_PAGE: Final = 500
_MOST: Final = 2**31


class Scan:
    """One query on one table. Runs on a connection's thread.

    Raises:
        QueryRefused: the query or sort is not allowed; while running, it took too long.
    """

    def __init__(self, table: Table, query: Query, sort: Sort = ()) -> None:
        self._table = table
        self._test = compile_query(query)
        self._plan = plan_query(query, table.fields)
        self._order = RecordOrder(sort)

    def first(self, connection: sqlite3.Connection) -> Record | None:
        """The first match in order."""
        if self._plan.id is not None:
            record = self._table.get(connection, self._plan.id)
            return record if record is not None and self._test(record) else None
        found = self.find(connection, 0, 1)
        return found[0] if found else None

    def find(
        self,
        connection: sqlite3.Connection,
        skip: int,
        limit: int | None,
        fields: Sequence[str] | None = None,
    ) -> list[Record]:
        """The matches in order, without the first `skip`, `limit` of them at most."""
        for number in (skip, limit):
            if number is not None and not 0 <= number < _MOST:
                raise QueryRefused(f"'skip' and 'limit' are numbers from 0, not {number:.3g}.")
        found = self._find(connection, skip, limit)
        if fields is None:
            return found
        parts = [split_path(check_field(field), "fields") for field in fields]
        return [project(record, parts) for record in found]

    def _find(self, connection: sqlite3.Connection, skip: int, limit: int | None) -> list[Record]:
        end = None if limit is None else skip + limit
        order = plan_order(self._order.keys, self._table.fields)
        if order is None:
            with closing(self._matches(connection, "")) as matches:
                return self._order.first(matches, end)[skip:]
        if not self._plan.exact:
            with closing(self._matches(connection, f" ORDER BY {order}")) as matches:
                return list(islice(matches, skip, end))
        tail = f" ORDER BY {order} LIMIT ? OFFSET ?"
        if limit is None:
            return list(self._rows(connection, self._plan.where, tail, -1, skip))
        # Ids first: when they must be sorted, they are lighter than whole records.
        ids = f"SELECT _id FROM {self._table.name} WHERE {self._plan.where}{tail}"  # noqa: S608  # declared names and placeholders
        where = f"_id IN ({ids})"
        return list(self._rows(connection, where, f" ORDER BY {order}", limit, skip))

    def count(self, connection: sqlite3.Connection) -> int:
        """How many records match."""
        if not self._plan.exact:
            return sum(1 for _ in self._matches(connection, ""))
        sql = f"SELECT count(*) FROM {self._table.name} WHERE {self._plan.where}"  # noqa: S608  # declared names and placeholders
        row: tuple[int] = connection.execute(sql, self._plan.parameters).fetchone()
        return row[0]

    def each(self, connection: sqlite3.Connection, act: Callable[[Record], object]) -> int:
        """Calls `act` with every match by `_id`, page by page, so that it may change or remove it.

        Returns how many there were.
        """
        count, last = 0, ""
        while True:
            tail = " AND _id > ? ORDER BY _id LIMIT ?"
            page = list(self._rows(connection, self._plan.where, tail, last, _PAGE))
            for record in filter(self._test, page):
                act(record)
                count += 1
            if len(page) < _PAGE:
                return count
            last = page[-1]["_id"]

    def _matches(self, connection: sqlite3.Connection, tail: str) -> Generator[Record, None, None]:
        began = time.thread_time()
        with closing(self._rows(connection, self._plan.where, tail)) as rows:
            for number, record in enumerate(rows, 1):
                if self._test(record):
                    yield record
                if number % _LOOK_EVERY == 0 and time.thread_time() - began > MAX_SCAN_SECONDS:
                    raise QueryRefused(
                        f"The query looked at {number} records of '{self._table.collection}' and "
                        f"took more than {MAX_SCAN_SECONDS:g} s; narrow it down by name."
                    )

    def _rows(
        self, connection: sqlite3.Connection, where: str, tail: str, *more: int | str
    ) -> Generator[Record, None, None]:
        sql = f"SELECT doc FROM {self._table.name} WHERE {where}{tail}"  # noqa: S608  # same
        with closing(connection.execute(sql, (*self._plan.parameters, *more))) as cursor:
            for (doc,) in cursor:
                yield decode(doc)

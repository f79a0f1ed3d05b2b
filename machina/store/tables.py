"""One SQLite table per collection: the record as JSON text, beside it the slots of indexed fields.

A table's name ends in a fingerprint of its columns. When the declared indexes change, the records
move into a new table on opening; a process that still runs the older code then fails loudly rather
than writing rows without their slots.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any
from zlib import crc32

from machina.errors import Invalid
from machina.store.base import Duplicate, Record
from machina.store.indexes import COLLECTIONS, indexed_fields, require_single
from machina.store.plans import Slot, column, slot_of
from machina.store.values import decode, encode, sound_text


class Table:
    """The statements of one collection. Every method runs inside the caller's transaction."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.fields = indexed_fields(collection)
        columns = [column(field) for field in self.fields]
        self.name = f"{collection}_{crc32(' '.join(columns).encode()):08x}"
        places = ", ".join("?" * (2 + len(columns)))
        self._insert = f"INSERT INTO {self.name} VALUES ({places})"  # noqa: S608  # declared names
        self._get = f"SELECT doc FROM {self.name} WHERE _id = ?"  # noqa: S608  # same
        self._columns = ", ".join(["_id TEXT PRIMARY KEY NOT NULL", *columns, "doc TEXT NOT NULL"])

    def create(self, connection: sqlite3.Connection) -> None:
        """Makes the table and its indexes as declared, and moves records of an older layout in."""
        older = [
            name
            for name in _names(connection, "table", "%")
            if re.fullmatch(rf"{self.collection}_[0-9a-f]{{8}}", name) and name != self.name
        ]
        connection.execute(f"CREATE TABLE IF NOT EXISTS {self.name} ({self._columns})")
        for name in older:
            rows = connection.execute(f"SELECT doc FROM {name}")  # noqa: S608  # matched above
            for (doc,) in rows:
                self.insert(connection, decode(doc))
            connection.execute(f"DROP TABLE {name}")
        self._create_indexes(connection)

    def _create_indexes(self, connection: sqlite3.Connection) -> None:
        declared = {f"{self.name}_{index.name}": index for index in COLLECTIONS[self.collection]}
        for name in _names(connection, "index", self.name):
            if name not in declared:
                connection.execute(f"DROP INDEX {name}")
        for name, index in declared.items():
            columns = [column(key) for key in index.keys]
            # `_id` last gives equal keys the order in which records are found.
            listed = ", ".join(columns if index.unique else [*columns, "_id"])
            unique = "UNIQUE " if index.unique else ""
            connection.execute(
                f"CREATE {unique}INDEX IF NOT EXISTS {name} ON {self.name} ({listed})"
            )

    def get(self, connection: sqlite3.Connection, id: str) -> Record | None:
        """The record of an id."""
        if not isinstance(id, str) or sound_text(id) != id:
            return None
        row = connection.execute(self._get, (id,)).fetchone()
        return None if row is None else decode(row[0])

    def insert(self, connection: sqlite3.Connection, record: Record) -> str:
        """Adds a row; returns the text that was stored. Raises `Duplicate` or `Invalid`."""
        id = record.get("_id")
        if not isinstance(id, str) or not id or "\0" in id or sound_text(id) != id:
            raise Invalid(f"A record's '_id' is text, not {id!r:.80}.", field="_id")
        doc = encode(record)
        slots = [self._slot(field, record.get(field)) for field in self.fields]
        self._write(connection, self._insert, (id, *slots, doc))
        return doc

    def update(self, connection: sqlite3.Connection, before: Record, after: Record) -> str:
        """Replaces a record; returns the text that was stored. Raises `Duplicate` or `Invalid`.

        `after` shares with `before` what is unchanged: indexes of other fields are not touched.
        """
        doc = encode(after)
        moved = {
            field: self._slot(field, after.get(field))
            for field in self.fields
            if after.get(field) is not before.get(field)
        }
        assigned = "".join(f", {column(field)} = ?" for field in moved)
        self._write(
            connection,
            f"UPDATE {self.name} SET doc = ?{assigned} WHERE _id = ?",  # noqa: S608  # declared
            (doc, *moved.values(), before["_id"]),
        )
        return doc

    def delete(self, connection: sqlite3.Connection, id: str) -> None:
        """Removes a row."""
        connection.execute(f"DELETE FROM {self.name} WHERE _id = ?", (id,))  # noqa: S608  # same

    def _slot(self, field: str, value: Any) -> Slot:
        if value is not None and type(value) is not str:
            require_single(self.collection, field, value)
        return slot_of(value)

    def _write(self, connection: sqlite3.Connection, sql: str, row: tuple[Any, ...]) -> None:
        try:
            connection.execute(sql, row)
        except sqlite3.IntegrityError as error:
            fields = re.findall(rf"{self.name}\.(?:f_)?(\w+)", str(error))
            raise Duplicate(
                f"'{self.collection}' has a record with this {' and '.join(fields) or '_id'}.",
                field=fields[-1] if fields else "_id",
                details={"fields": fields},
            ) from None
        except OverflowError:
            raise Invalid("A number in an indexed field exceeds 64 bits.") from None


def _names(connection: sqlite3.Connection, kind: str, table: str) -> list[str]:
    """The names of all tables, or of the indexes that were made for a table."""
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = ? AND tbl_name LIKE ? AND sql IS NOT NULL",
        (kind, table),
    )
    return [name.decode() for (name,) in rows]

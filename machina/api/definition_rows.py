"""Definitions as the public API shows and reads them: rows, projections of names, bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from machina.api.envelopes import mail_date
from machina.definitions.schedule import is_active
from machina.errors import Invalid
from machina.ids import is_object_id
from machina.store.base import Record
from machina.store.definitions import Kind

RESERVED: Final = frozenset(("search", "id", "executor", "execute", "schedule", "stream"))
"""Words that stand where a name would stand in paths (http-api.md 2.1)."""

_SERVER_MADE: Final = frozenset(("date", "last_execution", "last_execution_date"))
"""Fields of a row that a client may send back and that are not its to set."""
_TEXTS: Final = ("title", "description", "condition")
_PARTS: Final = ("workflows", "tasks")


def definition_row(
    kind: Kind, record: Record, last_execution: datetime | None = None
) -> dict[str, Any]:
    """A definition as authored, with the server's fields under the names that clients read.

    Expressions come back as they were written. Texts that clients cut to a length are never null.
    """
    created = mail_date(record["created"])
    row = {key: _shown(key, value) for key, value in record.items() if key != "project"}
    row |= {
        "_id": record["_id"],
        "id": record["_id"],
        "created": created,
        "updated": mail_date(record["updated"]),
        "date": created,
    }
    if kind == "agent":
        executed = mail_date(last_execution)
        row |= {"last_execution": executed, "last_execution_date": executed}
        row.setdefault("scheduled", False)
        row.setdefault("processing", False)
        if row.get("status") is None:
            row["status"] = "active" if is_active(None, record) else "inactive"
    elif kind == "workflow":
        row.setdefault("slug", record["name"])
    return row


def saved_answer(kind: Kind, id: str, name: str) -> dict[str, Any]:
    """The answer to a creation: each kind has its own, and clients read exactly that."""
    if kind == "agent":
        return {"data": {"id": id, "_id": id}, "meta": {"code": 200}, "status": "success"}
    data = {"_id": id, "id": id, "name": name}
    return {"data": data, "message": f"{kind} saved", "status": True}


def updated_answer(kind: Kind, row: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a change, likewise."""
    if kind == "agent":
        return {"message": "agent updated", "status": True}
    data = dict(row)
    if kind == "workflow":
        shown = ("_id", "name", "title", "description", "status", "updated")
        data = {field: row.get(field) for field in shown}
    return {"data": data, "message": f"{kind} updated", "status": True}


def read_definition(body: Mapping[str, Any]) -> dict[str, Any]:
    """A new definition from the body of a creation, bare or under `data`.

    Raises:
        Invalid: its name is a word of the paths.
    """
    if "name" not in body and isinstance(body.get("data"), dict):
        body = body["data"]
    return _authored(body)


def read_change(body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The fields of a change, and whether they replace the definition: so they do under `data`.

    Raises:
        Invalid: the new name is a word of the paths.
    """
    wrapped = body.get("data")
    if isinstance(wrapped, dict) and not body.keys() - {"data", "_id", "id"}:
        return _authored(wrapped), True
    return _authored(body), False


def _authored(body: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in body.items() if key not in _SERVER_MADE}
    if isinstance(fields.get("id"), str) and is_object_id(fields["id"]):
        del fields["id"]  # ours, sent back
    name = fields.get("name")
    if isinstance(name, str) and name in RESERVED:
        raise Invalid(
            f"'{name}' is a word of the API's paths and cannot be a name; choose another one.",
            field="name",
        )
    return fields


def _shown(key: str, value: Any) -> Any:
    if key in _TEXTS:
        return _text(value)
    if key in _PARTS and isinstance(value, list):
        return [_part(part) for part in value]
    return value


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {key: _text(value) if key in _TEXTS else value for key, value in part.items()}


def _text(value: Any) -> str:
    """The value as text: of a truth value or a number the expression that means it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, default=str) if isinstance(value, dict | list) else str(value)

"""Every collection and index, declared as data; both backends create exactly these.

An indexed field is a top-level field that holds one value (text, number, date, truth value or
nothing), never a list or an object: a write that says otherwise is refused. A unique index counts
only records in which all its fields have a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from machina.errors import Invalid


@dataclass(frozen=True, slots=True)
class Index:
    """Fields that are looked up together, in this order: equal ones, then a range or the sort.

    What follows is only there to be compared without reading the record.
    """

    keys: tuple[str, ...]
    unique: bool = False

    @property
    def name(self) -> str:
        return "_".join(self.keys) + ("_unique" if self.unique else "")


_BY_NAME: Final = (Index(("project", "name"), unique=True),)

COLLECTIONS: Final[Mapping[str, tuple[Index, ...]]] = {
    # By date of change: a scheduler asks every few seconds what is new.
    "agents": (*_BY_NAME, Index(("updated",))),
    "workflows": _BY_NAME,
    "prompts": _BY_NAME,
    "connectors": _BY_NAME,
    "mappings": _BY_NAME,
    "skills": _BY_NAME,
    # What was installed from where; the name is the place and the directory in it.
    "templates": _BY_NAME,
    "claims": (),
    "documents": (Index(("project",)), Index(("project", "name"))),
    "runs": (
        Index(("status", "wake_at", "queue_deadline")),
        Index(("status", "published")),
        Index(("worker", "status", "cancel_requested")),
        Index(("project", "kind", "created", "principal")),
        Index(("project", "target_id", "created")),
        # The key is a hash over its scope, so it is looked up without the project.
        Index(("idempotency", "project"), unique=True),
    ),
    "leases": (),
    # A key says which project a caller belongs to, so it is found before any project is known.
    "keys": (Index(("prefix",), unique=True), Index(("project",))),
    "secrets": _BY_NAME,
    "blobs": (Index(("blob", "number")), Index(("expires",))),
    "schedules": (
        *_BY_NAME,
        Index(("wake_at",)),
        Index(("agent_id",)),
        Index(("project", "target")),
    ),
}


def indexed_fields(collection: str) -> tuple[str, ...]:
    """The fields of a collection that some index holds, in the order of their declaration."""
    return tuple(dict.fromkeys(key for index in COLLECTIONS[collection] for key in index.keys))


def require_single(collection: str, field: str, value: Any) -> None:
    """Refuses a list, object or blob in an indexed field.

    Raises:
        Invalid: with the field.
    """
    if isinstance(value, list | tuple | dict | bytes):
        raise Invalid(
            f"'{field}' of a record in '{collection}' holds one value, not a "
            f"{type(value).__name__}.",
            field=field,
        )

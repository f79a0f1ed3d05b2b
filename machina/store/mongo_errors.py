"""What the driver raises, in the store's own words: nothing of it leaves this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ExecutionTimeout,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from machina.errors import Invalid, MachinaError, StoreDown
from machina.store.base import Duplicate
from machina.store.indexes import COLLECTIONS

DRIVER_ERRORS: Final = (PyMongoError, BSONError)
_DUPLICATE_CODES: Final = (11000, 11001, 12582)
_DUPLICATE_TEXTS: Final = ("E11000", "duplicate key", "UNIQUE constraint failed")
"""For servers that report a taken key without its code."""
_LOGIN_CODES: Final = (13, 18, 8000)
_CONFLICT_CODES: Final = (85, 86)
_REFUSAL_CODES: Final = frozenset(
    (2, 9, 14, 15, 28, 40, 52, 53, 54, 55, 56, 57, 66, 115, 238, 10334, 17280, 17419, 17420)
) | {31082, 40324, 6047401}  # no search on this server; no such stage
"""The request itself cannot be done: bad value or type, path or field, too deep or too large,
or something that this server does not do at all."""
_REASONS: Final[tuple[tuple[type[PyMongoError], str], ...]] = (
    (ServerSelectionTimeoutError, "no server that takes writes was found"),
    (WaitQueueTimeoutError, "all connections to it are busy"),
    (NetworkTimeout, "its answer took too long"),
    (ExecutionTimeout, "the operation took too long"),
    (WTimeoutError, "too few of its members confirmed a write in time"),
    (NotPrimaryError, "its primary is changing"),
    (AutoReconnect, "the connection broke"),
)


class TookTooLong(StoreDown):
    """The server gave an operation up because it took longer than it was allowed to."""


class ServerRefused(StoreDown):
    """The server answers, and will not do this: asking again would not help."""


def named(error: Exception, collection: str) -> MachinaError:
    """The store's error for one of `DRIVER_ERRORS`; the driver's own is to be its cause."""
    if not isinstance(error, PyMongoError):
        return Invalid(f"MongoDB cannot keep this record: {str(error)[:200]}.")
    if is_duplicate(error):
        return taken(collection, _fields(error, collection))
    if isinstance(error, ExecutionTimeout):
        return TookTooLong("MongoDB gave up: the operation took too long.")
    code = getattr(error, "code", None)
    if is_refusal(error):
        return ServerRefused(f"MongoDB refused the operation (code {code}).")
    return StoreDown(f"MongoDB failed: {_reason(error, code)}.")


def index_failed(error: Exception, collection: str) -> StoreDown:
    """The error for indexes that could not be made, with what to do about it."""
    code = getattr(error, "code", None)
    if code in _CONFLICT_CODES:
        return StoreDown(
            f"MongoDB has an index on '{collection}' with other options than this version needs; "
            f"compare db.{collection}.getIndexes() with machina/store/indexes.py, drop it, and the "
            "next call makes it anew."
        )
    if isinstance(error, PyMongoError) and is_duplicate(error):
        unique = " or ".join(i.name for i in COLLECTIONS[collection] if i.unique)
        return StoreDown(
            f"MongoDB cannot make the unique index {unique} on '{collection}': records there have "
            "the same values; remove the surplus ones."
        )
    described = named(error, collection)
    return described if isinstance(described, StoreDown) else StoreDown(described.message)


def is_duplicate(error: PyMongoError) -> bool:
    """Whether a unique key was taken, also where the server gives no code for it."""
    if not isinstance(error, OperationFailure):
        return False
    if error.code is not None:
        return error.code in _DUPLICATE_CODES
    return any(text in str(error) for text in _DUPLICATE_TEXTS)


def is_refusal(error: PyMongoError) -> bool:
    """Whether the server understood a request and will never do it."""
    return isinstance(error, OperationFailure) and error.code in _REFUSAL_CODES


def taken(collection: str, fields: Sequence[str]) -> Duplicate:
    """The error for a key that another record has."""
    return Duplicate(
        f"'{collection}' has a record with this {' and '.join(fields)}.",
        field=fields[-1],
        details={"fields": list(fields)},
    )


def _fields(error: PyMongoError, collection: str) -> list[str]:
    details, text = getattr(error, "details", None), str(error)
    if isinstance(details, Mapping) and isinstance(details.get("keyPattern"), Mapping):
        return list(details["keyPattern"])
    for index in COLLECTIONS.get(collection, ()):
        if index.unique and (index.name in text or "_".join(index.keys) in text):
            return list(index.keys)
    return ["_id"]


def _reason(error: PyMongoError, code: Any) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if code in _LOGIN_CODES:
        return "it refuses the user; check user, password and rights in MONGODB_URL"
    if isinstance(error, ConfigurationError):
        return "it is older than 4.4, or MONGODB_URL does not fit it or cannot be resolved"
    return f"{type(error).__name__}" + ("" if code is None else f", code {code}")

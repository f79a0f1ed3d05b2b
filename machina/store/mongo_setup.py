"""What a server is asked on first contact: how far it means what MongoDB means, and its indexes.

Everything here may be done by several processes at once and again at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog
from pymongo import IndexModel
from pymongo.errors import OperationFailure

from machina.store.base import Sort
from machina.store.indexes import COLLECTIONS, Index
from machina.store.mongo_errors import DRIVER_ERRORS, index_failed, is_duplicate, is_refusal

log = structlog.get_logger(__name__)

PROBES: Final = "machina_probes"
PROBE_RECORDS: Final[tuple[dict[str, Any], ...]] = (
    {"_id": "1", "list": [{"n": 1}, {"n": 5}], "text": "a", "null": None, "mixed": True},
    {"_id": "2", "list": [{"n": 7}, {"n": 0}], "text": "b", "null": None, "mixed": 5},
)
PROBE_QUERY: Final[dict[str, Any]] = {
    "list.n": {"$gt": 4, "$not": {"$gt": 9}},
    "list": {"$elemMatch": {"n": {"$gt": 4}}, "$size": 2},
    "text": {"$not": {"$gt": 1}, "$ne": 1},
    "null": {"$exists": True, "$gte": None},
    "absent": None,
    "$nor": [{"absent": {"$ne": None}}, {"mixed": 1}],
}
"""Matches both records if paths spread over lists, types are kept apart and null is not absent."""
PROBE_ORDER: Final[Sort] = [("mixed", 1)]
"""Every number comes before every truth value: the second record first."""


async def is_faithful(database: Any) -> bool:
    """Whether the server gives queries the meaning that MongoDB gives them.

    There are servers that speak MongoDB's protocol and are more lenient; they are asked for less.
    """
    probes = database[PROBES]
    if await _answers_rightly(probes):
        return True
    for record in PROBE_RECORDS:
        try:
            await probes.insert_one(record.copy())
        except OperationFailure as error:
            if not is_duplicate(error):
                raise
    faithful = await _answers_rightly(probes)
    if not faithful:
        log.warning("store.lenient_server", reason="queries are checked in this process as well")
    return faithful


async def _answers_rightly(probes: Any) -> bool:
    try:
        found = await probes.find(PROBE_QUERY, {"_id": 1}, sort=PROBE_ORDER).to_list(None)
    except OperationFailure as error:
        if error.code is not None and not is_refusal(error):
            raise
        log.debug("store.probe_refused", error=str(error)[:200])
        return False
    return [record["_id"] for record in found] == ["2", "1"]


async def create_indexes(database: Any, *, faithful: bool) -> None:
    """Makes every declared index that is not there.

    Raises:
        StoreDown: the server is away, or has an index or records that contradict a declared one.
    """
    await asyncio.gather(
        *(
            _create(database, name, index_models(indexes, faithful=faithful))
            for name, indexes in COLLECTIONS.items()
            if indexes
        )
    )


async def _create(database: Any, name: str, models: list[IndexModel]) -> None:
    try:
        await database[name].create_indexes(models)
    except DRIVER_ERRORS as error:
        raise index_failed(error, name) from error


def index_models(indexes: Sequence[Index], *, faithful: bool) -> list[IndexModel]:
    """The declared indexes of a collection in the driver's terms, as the server can have them."""
    models = [_model(index, faithful) for index in indexes]
    if faithful:
        first = {index.keys[0] for index in indexes if not index.unique}
        models += [
            _starting_with(index.keys[0])
            for index in indexes
            if index.unique and len(index.keys) > 1 and index.keys[0] not in first
        ]
    return models


def _model(index: Index, faithful: bool) -> IndexModel:
    keys = [(key, 1) for key in index.keys]
    if index.unique:
        # Texts only, said so that MongoDB sees that a look-up by text can use the index.
        return IndexModel(
            keys, name=index.name, unique=True, partialFilterExpression=_texts(index.keys)
        )
    # `_id` last gives equal keys the order in which records are found.
    return IndexModel([*keys, ("_id", 1)] if faithful else keys, name=index.name)


def _starting_with(key: str) -> IndexModel:
    """For look-ups by the first key alone, which cannot use an index that also needs the others."""
    return IndexModel(
        [(key, 1), ("_id", 1)], name=f"{key}_first", partialFilterExpression=_texts([key])
    )


def _texts(keys: Sequence[str]) -> dict[str, Any]:
    return {key: {"$gte": ""} for key in keys}

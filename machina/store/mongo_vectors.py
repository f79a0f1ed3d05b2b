"""Vector search by an index of MongoDB Atlas, with one `$vectorSearch`.

The operator makes the index over `documents`, of the type `vectorSearch`: `embedding` as a vector
with the similarity `cosine`, `project` and `name` as filters. It follows the data after some
moments, so what was just written may not be found yet.
"""

from __future__ import annotations

from typing import Any, Final

import bson
import structlog

from machina.store.base import Query
from machina.store.matching import conjuncts
from machina.store.mongo_documents import Documents
from machina.store.mongo_errors import ServerRefused
from machina.store.mongo_plans import Filter
from machina.store.mongo_scans import Scan
from machina.store.vectors import unpack

log = structlog.get_logger(__name__)

FILTERED: Final = ("project", "name")
"""Fields that the index itself filters by; the rest of a query is applied to what it finds."""
MAX_CANDIDATES: Final = 10_000
_WIDER: Final = 10
"""Candidates looked at for each that is wanted: the more, the surer that none is missed."""


async def find_nearest(
    documents: Documents, query: Query, path: str, vector: bytes, *, index: str, limit: int
) -> list[tuple[str, float]] | None:
    """See `Collection.nearest`."""
    plan = await Scan(documents, query).plan()
    if not (plan.exact and await documents.is_faithful()):
        return None
    try:
        rows = await documents.aggregate(
            make_pipeline(query, plan.filter, path, vector, index=index, limit=limit)
        )
    except ServerRefused as refused:
        log.warning("store.vector_search_refused", index=index, error=refused.message)
        return None
    found = [bson.decode(bytes(row.raw)) for row in rows]
    return [(row["_id"], cosine_of(row["score"])) for row in found]


def make_pipeline(
    query: Query, match: Filter, path: str, vector: bytes, *, index: str, limit: int
) -> list[dict[str, Any]]:
    """The stages of one search; the tenant's filter is inside the index's, never after it alone."""
    filters = [
        {field: {"$eq": operand}}
        for field, name, operand in conjuncts(query)
        if field in FILTERED and name == "$eq" and isinstance(operand, str)
    ]
    search = {
        "index": index,
        "path": path,
        "queryVector": unpack(vector),
        "numCandidates": min(_WIDER * limit, MAX_CANDIDATES),
        "limit": limit,
        "filter": {"$and": filters},
    }
    return [
        {"$vectorSearch": search},
        {"$match": match},
        {"$project": {"_id": 1, "score": {"$meta": "vectorSearchScore"}}},
    ]


def cosine_of(score: float) -> float:
    """Atlas counts `(1 + cosine) / 2`:
    https://www.mongodb.com/docs/atlas/atlas-vector-search/vector-search-stage/"""
    return 2.0 * score - 1.0

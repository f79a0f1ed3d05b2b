"""The action `search`: by filters, or by what documents mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog

from machina.engine.blocks import evaluate_value
from machina.engine.document_door import Document, Sort
from machina.engine.tasks.base import TaskCall
from machina.engine.tasks.documents.config import (
    is_on,
    read_connector,
    read_count,
    read_number,
    read_sort,
)
from machina.engine.tasks.documents.embedding import embed, query_text
from machina.engine.tasks.documents.filters import CONTROL, read_selection

log = structlog.get_logger(__name__)

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 10_000
DEFAULT_SIMILARITY: Final = 0.01
DEFAULT_NEAREST: Final = 5
MAX_NEAREST: Final = 1_000


async def search(call: TaskCall, config: Mapping[str, Any]) -> list[Document]:
    """The documents that match; none is no failure.

    Raises:
        RunError: filters, sorters or settings that cannot be, or a query that cannot be embedded.
    """
    given = {k: v for k, v in call.inputs.items() if k.startswith(CONTROL) and v is not None}
    settings = {**config, **given}
    where = call.where
    selection = await read_selection(call, with_inputs=True)
    sort = await _read_sorters(call, settings)
    limit = read_count(
        settings.get("search-limit"), DEFAULT_LIMIT, MAX_LIMIT, "search-limit", where
    )
    if not is_on(settings.get("search-vector")):
        return await call.ctx.doors.documents.find(selection.query, sort=sort, limit=limit)
    text = query_text(settings.get("search-query"))
    if not text:
        log.info("documents.nothing_to_search_for", where=where)
        return []
    [meaning] = await embed(call, await read_connector(call, config), [text])
    return await call.ctx.doors.documents.nearest(
        selection.query,
        meaning,
        sort=sort,
        pool=limit,
        at_least=read_number(
            settings.get("threshold-similarity"),
            DEFAULT_SIMILARITY,
            "threshold-similarity",
            where,
        ),
        limit=read_count(
            settings.get("threshold-docs"), DEFAULT_NEAREST, MAX_NEAREST, "threshold-docs", where
        ),
    )


async def _read_sorters(call: TaskCall, settings: Mapping[str, Any]) -> Sort:
    written = settings.get("search-sorters")
    if written is None:  # one author wrote them beside `config`
        written = await evaluate_value(
            call.ctx, call.task.raw.get("sorters"), call.scope, f"{call.where}, sorters"
        )
    return read_sort(written, call.where)

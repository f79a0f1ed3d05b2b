"""The actions `bulk-save` and `bulk-update`: one document for each item of a list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.engine.borders import cross_border
from machina.engine.document_door import Document, Draft, Upsert
from machina.engine.tasks.base import TaskCall
from machina.engine.tasks.documents.embedding import Embedding
from machina.engine.tasks.documents.queries import metadata_paths
from machina.engine.tasks.documents.values import storable
from machina.engine.tasks.documents.writing import (
    metadata_of,
    read_documents,
    read_metadata,
    read_name,
)
from machina.errors import BudgetExceeded, TaskFailed

MAX_ITEMS: Final = 10_000
ITEMS: Final = "items"


async def bulk_save(call: TaskCall, config: Mapping[str, Any]) -> list[Document]:
    """Adds a document for each item; no items are no failure.

    Raises:
        RunError: no list, too many items, or something that no document holds.
    """
    _, drafts = await _drafts(call, config)
    return await call.ctx.doors.documents.insert(drafts) if drafts else []


async def bulk_update(call: TaskCall, config: Mapping[str, Any]) -> list[Document]:
    """Writes each item into the document of its name and metadata, or adds it.

    Raises:
        RunError: no list, too many items, or something that no document holds.
    """
    name, drafts = await _drafts(call, config)
    if not drafts:
        return []
    upserts = [Upsert(draft, _match(draft, call.where)) for draft in drafts]
    return await call.ctx.doors.documents.upsert(name, upserts)


def _match(draft: Draft, where: str) -> Mapping[str, Any] | None:
    """What tells the document of an item from others of its name.

    Its metadata, when the item has some of its own. What only the task says is the same for all
    items: then the item's id tells them apart as well. Without either, nothing can.
    """
    item = draft.value if isinstance(draft.value, Mapping) else {}
    paths = metadata_paths(draft.metadata, where)
    if _own_metadata(item):
        return paths
    for key in ("_id", "id"):
        if item.get(key) is not None:
            return {**paths, f"value.{key}": item[key]}
    return paths or None


def _own_metadata(item: Mapping[str, Any]) -> Mapping[str, Any]:
    own = item.get("metadata")
    return own if isinstance(own, Mapping) else {}


async def _drafts(call: TaskCall, config: Mapping[str, Any]) -> tuple[str, list[Draft]]:
    name, items = await _items(call)
    if not items:
        return name, []
    metadata = await read_metadata(call)

    drafts = await cross_border(
        lambda all_items: [_draft(name, item, metadata, call.where) for item in all_items], items
    )
    embedding = await Embedding.read(call, config)
    return name, drafts if embedding is None else await embedding.add(drafts)


def _draft(name: str, item: Any, metadata: Mapping[str, Any], where: str) -> Draft:
    value = storable(item, where)
    fields: dict[str, Any] = {}
    if isinstance(value, Mapping):
        metadata = {**metadata, **metadata_of(_own_metadata(value), where)}
        if isinstance(value.get("title"), str):
            fields["title"] = value["title"]
    return Draft(name, value, metadata, fields)


async def _items(call: TaskCall) -> tuple[str, list[Any]]:
    """The name of the documents, and the items without the null ones."""
    documents = await read_documents(call)
    name = await read_name(call)
    key = ITEMS if ITEMS in documents else next(iter(documents), ITEMS)
    items = documents.get(key)
    if items is None:
        items = []
    if isinstance(items, Mapping):
        items = [items]
    if not isinstance(items, list | tuple):
        raise TaskFailed(
            f"documents.{key} of {call.where} is a {type(items).__name__}; a bulk action needs a "
            "list of documents."
        )
    if len(items) > MAX_ITEMS:
        raise BudgetExceeded(
            f"documents.{key} of {call.where} has {len(items)} items; at most {MAX_ITEMS} are "
            "written at once."
        )
    items = [item for item in items if item is not None]
    if name is None and key != ITEMS:
        name = key
    if name is None and items:
        raise TaskFailed(f"{call.where} does not say what its documents are: set 'document_name'.")
    return name or "", items

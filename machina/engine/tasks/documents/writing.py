"""The actions `save` and `update`: one document for each key of `documents`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machina.engine.blocks import evaluate_value
from machina.engine.borders import cross_border
from machina.engine.document_door import Document, Draft
from machina.engine.tasks.base import TaskCall
from machina.engine.tasks.documents.embedding import Embedding
from machina.engine.tasks.documents.filters import read_selection, scope_of
from machina.engine.tasks.documents.queries import Query, equal_to, metadata_paths
from machina.engine.tasks.documents.values import storable
from machina.errors import TaskFailed


async def save(call: TaskCall, config: Mapping[str, Any]) -> list[Document]:
    """Adds a document for each key.

    Raises:
        RunError: nothing to save, or something that no document holds.
    """
    drafts = await _drafts(call, config)
    return await call.ctx.doors.documents.insert(drafts)


async def update(call: TaskCall, config: Mapping[str, Any]) -> list[Document]:
    """Writes into the document that each key means, or adds it.

    One that is named by an id and is not there is not written.

    Raises:
        RunError: filters that cannot be, or something that no document holds.
    """
    selection = await read_selection(call)
    drafts = await _drafts(call, config)
    written = []
    for draft in drafts:
        query = selection.query
        if not query:
            query = by_name(draft, call.where)
        elif not selection.names_id and ("name" not in query or len(drafts) > 1):
            query = {**query, "name": draft.name}
        document = await call.ctx.doors.documents.update(
            query, draft, upsert=not selection.names_id
        )
        if document is not None:
            written.append(document)
    return written


def by_name(draft: Draft, where: str) -> Query:
    """The query for the document of a draft: its name, and everything its metadata says."""
    paths = metadata_paths(draft.metadata, where)
    return {"name": draft.name, **{path: equal_to(value) for path, value in paths.items()}}


async def read_metadata(call: TaskCall) -> dict[str, Any]:
    """The task's evaluated `metadata`.

    Raises:
        TaskFailed: it is no dictionary, or holds what no document can.
    """
    where = f"{call.where}, metadata"
    value = await evaluate_value(call.ctx, call.task.raw.get("metadata"), scope_of(call), where)
    return metadata_of(value, call.where)


async def _stored(call: TaskCall, value: Any) -> Any:
    """What a document is to hold, checked; a large one where that does not block the loop.

    Raises:
        TaskFailed: no document holds it.
    """
    return await cross_border(lambda whole: storable(whole, call.where), value)


def metadata_of(value: Any, where: str) -> dict[str, Any]:
    """Metadata as it is stored; null is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TaskFailed(f"metadata of {where} is a {type(value).__name__}; write a dictionary.")
    return dict(storable(value, where))


async def read_name(call: TaskCall) -> str | None:
    """The evaluated `document_name`, None without one."""
    raw = call.task.raw.get("document_name")
    where = f"{call.where}, document_name"
    return name_of(await evaluate_value(call.ctx, raw, scope_of(call), where), call.where)


def name_of(value: Any, where: str) -> str | None:
    """A document's name; null and nothing are None.

    Raises:
        TaskFailed: it is no text.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TaskFailed(
            f"A document of {where} is named {value!r:.80}; a name is text, as in \"'thread'\"."
        )
    return str(value)


async def read_documents(call: TaskCall) -> dict[str, Any]:
    """The evaluated `documents`: empty without any.

    Raises:
        ExpressionFailed: a value or a computed key raised.
        TaskFailed: it is no dictionary.
    """
    where = f"{call.where}, documents"
    value = await evaluate_value(call.ctx, call.task.raw.get("documents"), scope_of(call), where)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TaskFailed(f"documents of {call.where} are a {type(value).__name__}, no dictionary.")
    return {str(key): item for key, item in value.items()}


async def _drafts(call: TaskCall, config: Mapping[str, Any]) -> list[Draft]:
    metadata = await read_metadata(call)
    documents = await read_documents(call)
    if documents:
        other = await read_name(call) if len(documents) == 1 else None
        drafts = [
            Draft(other or key, await _stored(call, value), metadata)
            for key, value in documents.items()
        ]
    else:
        drafts = [await _draft_of_inputs(call, metadata)]
    embedding = await Embedding.read(call, config)
    return drafts if embedding is None else await embedding.add(drafts)


async def _draft_of_inputs(call: TaskCall, metadata: Mapping[str, Any]) -> Draft:
    """Some authors write the fields of the one document as inputs."""
    name = name_of(call.inputs.get("name"), call.where)
    if name is None or "value" not in call.inputs:
        raise TaskFailed(
            f"{call.where} has nothing to write: give it 'documents', or the inputs 'name' and "
            "'value'."
        )
    own = metadata_of(call.inputs.get("metadata"), call.where)
    item = storable(call.inputs.get("item_id"), call.where)
    return Draft(
        name,
        await _stored(call, call.inputs["value"]),
        {**metadata, **own},
        {} if item is None else {"item_id": item},
    )

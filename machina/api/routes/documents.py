"""Documents: the data of a project, read and written by every client of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path

from machina.api import document_examples as examples
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.document_bodies import HIDDEN, read_document, read_document_change
from machina.api.envelopes import Answer, mail_date, one, page
from machina.api.examples import body as body_example
from machina.api.queries import read_search, stored_path
from machina.api.security import Caller
from machina.auth import Principal
from machina.errors import Invalid, NotFound
from machina.resources import Resources
from machina.store.base import Record
from machina.store.filters import rename_sort, rewrite_query
from machina.store.replacing import replace_document

router = APIRouter(prefix="/document", tags=["Documents"])

IdPath = Annotated[str, Path(description="Id of the document.", examples=[examples.ID])]


@router.post(
    "/search",
    summary="Search documents",
    responses=examples.SEARCH_ANSWERS,
    openapi_extra=body_example(examples.SEARCH_BODY),
)
async def search_documents(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """Newest first, unless told otherwise. Filters are MongoDB queries over a closed set of
    operators; they reach into `value` and `metadata` by dotted paths.
    """
    return await _search(body, caller, resources)


@router.post(
    "/retrieve",
    summary="A document, or a search",
    responses=examples.RETRIEVE_ANSWERS,
    openapi_extra=body_example({"document_id": examples.ID}),
)
async def retrieve_document(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """With an id under `document_id`, `item_id`, `_id` or `id` the document; without one a
    search.
    """
    for key in ("document_id", "item_id", "_id", "id"):
        if body.get(key) is not None:
            return one(document_row(await _find(body[key], caller, resources)))
    return await _search(body, caller, resources)


@router.post(
    "",
    summary="Add a document",
    responses=examples.CREATE_ANSWERS,
    openapi_extra=body_example(examples.DOCUMENT_BODY),
)
async def create_document(body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
    """The value is any JSON. Names need not be unique; id and dates are the server's."""
    record = await resources.store.documents.insert(caller.project, read_document(body))
    return one(document_row(record), "document saved")


@router.get("/{id}", summary="A document", responses=examples.READ_ANSWERS)
async def read_document_by_id(id: IdPath, caller: Caller, resources: ResourcesDep) -> Answer:
    """The whole document."""
    return one(document_row(await _find(id, caller, resources)))


@router.put(
    "/{id}",
    summary="Change a document",
    responses=examples.UPDATE_ANSWERS,
    openapi_extra=body_example({"value": {"status": "idle"}}),
)
async def update_document(
    id: IdPath, body: BodyDep, caller: Caller, resources: ResourcesDep
) -> Answer:
    """Replaces the fields that the body has and leaves the others; a body of `{"data": {…}}`
    replaces the document, and it keeps its name if none is given.
    """
    fields, replaces = read_document_change(body)
    store = resources.store
    if replaces:
        changed = await replace_document(
            store.backend, caller.project, id, fields, keep=("name", *HIDDEN)
        )
    else:
        changed = await store.documents.update(caller.project, {"_id": {"$eq": id}}, fields)
    if changed is None:
        raise _unknown(id)
    return one(document_row(changed), "document updated")


@router.delete("/{id}", summary="Delete a document", responses=examples.DELETE_ANSWERS)
async def delete_document(id: IdPath, caller: Caller, resources: ResourcesDep) -> Answer:
    """It is gone at once and for all."""
    if not await resources.store.documents.delete(caller.project, {"_id": {"$eq": id}}):
        raise _unknown(id)
    return one({"_id": id, "id": id}, "document deleted")


def document_row(record: Record) -> dict[str, Any]:
    """A document as the public API shows it; what is inside `value` passes as it is."""
    created = mail_date(record["created"])
    hidden = ("project", *HIDDEN)
    return {key: value for key, value in record.items() if key not in hidden} | {
        "id": record["_id"],
        "created": created,
        "updated": mail_date(record["updated"]),
        "date": created,
    }


async def _search(body: Mapping[str, Any], caller: Principal, resources: Resources) -> Answer:
    query = read_search(body)
    filters = rewrite_query(query.filters, rename=_stored_path)
    if body.get("document_id") is not None:
        filters = {"$and": [filters, {"_id": {"$eq": _id_of(body["document_id"])}}]}
    records, total = await resources.store.documents.search(
        caller.project,
        filters,
        sort=rename_sort(query.sort, _stored_path),
        skip=query.skip,
        limit=query.page_size,
    )
    rows = [query.project(document_row(record)) for record in records]
    return page(rows, total=total, page=query.page, page_size=query.page_size)


async def _find(id: Any, caller: Principal, resources: Resources) -> Record:
    found = await resources.store.documents.get(caller.project, _id_of(id))
    if found is None:
        raise _unknown(id)
    return found


def _id_of(value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid("The id of a document is text.", field="document_id")
    return value


def _unknown(id: str) -> NotFound:
    return NotFound(f"There is no document '{id[:80]}'.", field="document")


def _stored_path(path: str) -> str:
    top = path.partition(".")[0]
    if top in HIDDEN:
        raise Invalid(f"Documents cannot be searched by '{top}'.", field="filters")
    return stored_path(path)

"""Replacing a document: fields that the new version does not have are gone afterwards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from machina.errors import Conflict
from machina.store.base import Backend, Record

_OURS: Final = ("_id", "project", "created", "updated")
_TRIES: Final = 8


async def replace_document(
    backend: Backend, project: str, id: str, fields: Mapping[str, Any], *, keep: Collection[str]
) -> Record | None:
    """Puts these fields in place of the document's own and returns it; None when there is none.

    Fields in `keep` stay as they are where the new version does not have them.

    Raises:
        Conflict: others kept changing it meanwhile.
    """
    documents = backend.collection("documents")
    for _ in range(_TRIES):
        found = await documents.get(id)
        if found is None or found["project"] != project:
            return None
        gone = found.keys() - fields.keys() - {*_OURS, *keep}
        change: dict[str, dict[str, Any]] = {"$set": {**fields, "updated": await backend.now()}}
        if gone:
            change["$unset"] = dict.fromkeys(sorted(gone), "")
        seen = {"_id": id, "project": project, "updated": found["updated"]}
        replaced = await documents.find_and_update(seen, change)
        if replaced is not None:
            return replaced
    raise Conflict(f"The document '{id}' is being changed by others; try again.")

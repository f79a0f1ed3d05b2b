"""The bodies in which clients send documents, read into the fields that are stored.

Five forms are in use: flat with `value`, flat with `content`, `{collection_name, document}`, and
changes flat or under `data` (http-api.md 2.5). Any JSON is a value; what is checked is the names of
fields, because a field's name is a path in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from machina.definitions.base import check_name
from machina.errors import Invalid
from machina.store.vector_search import SPACE, VECTOR

HIDDEN: Final = (VECTOR, SPACE)
"""Fields that the server makes, and that are neither shown nor set over HTTP."""

_OURS: Final = frozenset(("_id", "id", "project", "created", "updated", "date", *HIDDEN))
_ADDRESSES: Final = frozenset(("item_id", "document_id"))
"""How callers of tools name the document; the path does."""
_WRAPPERS: Final = _OURS | _ADDRESSES | {"data"}


def read_document(body: Mapping[str, Any]) -> dict[str, Any]:
    """A new document.

    Raises:
        Invalid: it has nothing to keep, or a field whose name or type cannot be stored.
    """
    if "name" not in body and isinstance(body.get("data"), dict):
        body = body["data"]
    fields = _authored(_of_collection(body))
    if not fields:
        raise Invalid(
            'A document needs fields, as {"name": "thread", "value": {}, "metadata": {}}.',
            field="value",
        )
    return fields


def read_document_change(body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The fields of a change, and whether they replace the document: so they do under `data`.

    Raises:
        Invalid: a field whose name or type cannot be stored.
    """
    wrapped = body.get("data")
    if isinstance(wrapped, dict) and not body.keys() - _WRAPPERS:
        return _authored(wrapped), True
    return _authored(body), False


def _of_collection(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """`{collection_name, document}` as a flat body."""
    document = body.get("document")
    if "collection_name" not in body or not isinstance(document, dict):
        return body
    named = {"name": body["collection_name"]}
    more = {key: body[key] for key in ("metadata", "status", "title") if key in body}
    if "value" in document:
        return named | more | document
    return named | more | {"value": document}


def _authored(body: Mapping[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in body.items() if key not in _OURS | _ADDRESSES}
    _lift_value(fields)
    for key in fields:
        _check_key(key)
    if "name" in fields:
        _check_name(fields["name"])
    if fields.get("metadata") is None and "metadata" in fields:
        fields["metadata"] = {}
    if not isinstance(fields.get("metadata", {}), dict):
        raise Invalid('\'metadata\' must be an object, as {"language": "en"}.', field="metadata")
    return fields


def _lift_value(fields: dict[str, Any]) -> None:
    """`content.value` is the value; the rest of such a content stays what it is."""
    content = fields.get("content")
    if not isinstance(content, dict) or "value" not in content:
        return
    rest = {key: value for key, value in content.items() if key != "value"}
    fields.setdefault("value", content["value"])
    if rest:
        fields["content"] = rest
    else:
        del fields["content"]


def _check_key(key: str) -> None:
    if not key or key.startswith("$") or "." in key or "\0" in key:
        raise Invalid(
            f"A document cannot have the field {key[:60]!r}: names at the top are not empty, do "
            "not begin with '$' and hold no '.'; below 'value' any name may stand.",
            field=key[:60],
        )


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise Invalid("A document's name is text, as 'thread'.", field="name")
    check_name(name)

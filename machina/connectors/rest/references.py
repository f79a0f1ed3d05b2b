"""Follows the local `$ref`s of a document, never far and never in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MAX_HOPS: Final = 16


def dereference(document: Mapping[str, Any], node: Any) -> Mapping[str, Any]:
    """The mapping that `node` is or refers to; an empty one where there is none.

    References to other documents are not fetched: they count as nothing.
    """
    for _ in range(MAX_HOPS):
        if not isinstance(node, Mapping):
            return {}
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return node
        node = _find(document, reference)
    return {}


def _find(document: Mapping[str, Any], reference: str) -> Any:
    """RFC 6901 within the document."""
    if not reference.startswith("#/"):
        return None
    node: Any = document
    for token in reference[2:].split("/"):
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key[:9]) < len(node):
            node = node[int(key[:9])]
        else:
            return None
    return node

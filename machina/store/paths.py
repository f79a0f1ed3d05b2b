"""Dotted paths through records: reading with MongoDB's view of lists, changing, projecting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final, NoReturn

from machina.store.base import QueryRefused, Record

MAX_PATH_PARTS: Final = 100
MAX_LIST_GAP: Final = 1_000
"""How far beyond its end a list may be set; the gap is filled with null."""


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final = _Missing.MISSING
"""What a path that leads nowhere finds."""


def split_path(path: str, where: str) -> tuple[str, ...]:
    """The parts of a dotted path.

    Raises:
        QueryRefused: an empty part, NUL, or too many parts.
    """
    parts = tuple(path.split("."))
    if "" in parts or "\0" in path or len(parts) > MAX_PATH_PARTS:
        raise QueryRefused(f"{path[:80]!r} is not the path of a field (in '{where}').", field=where)
    return parts


def leaves(node: Any, parts: Sequence[str], at: int = 0) -> Iterator[Any]:
    """Every value the path leads to; `MISSING` where an object or a value lacks the next part.

    A list on the way stands for the objects in it, and for one element if the part is a number. A
    list at the end is yielded whole.
    """
    while at < len(parts):
        if isinstance(node, dict):
            node = node.get(parts[at], MISSING)
            at += 1
        elif isinstance(node, list):
            yield from _through_list(node, parts, at)
            return
        else:
            yield MISSING
            return
    yield node


def _through_list(items: list[Any], parts: Sequence[str], at: int) -> Iterator[Any]:
    for item in items:
        if isinstance(item, dict):
            yield from leaves(item, parts, at)
    place = list_index(parts[at])
    if place is not None and place < len(items):
        item = items[place]
        if at + 1 == len(parts) or isinstance(item, dict | list):
            yield from leaves(item, parts, at + 1)


def list_index(part: str) -> int | None:
    """The number a path part says, if it is the index of a list."""
    if part.isascii() and part.isdigit() and len(part) < 10 and (part == "0" or part[0] != "0"):
        return int(part)
    return None


def get_at(record: Record, parts: Sequence[str]) -> Any:
    """The one value a change refers to, or `MISSING`: numbers are indexes, lists are not spread."""
    node: Any = record
    for part in parts:
        node = _step(node, part)
    return node


def _step(node: Any, part: str) -> Any:
    if isinstance(node, dict):
        return node.get(part, MISSING)
    if isinstance(node, list):
        place = list_index(part)
        return node[place] if place is not None and place < len(node) else MISSING
    return MISSING


def set_at(record: Record, parts: Sequence[str], value: Any) -> None:
    """Puts a value at a path of a record whose top level is the caller's own copy.

    Containers below are copied on the way, absent ones created.

    Raises:
        QueryRefused: a value on the way is neither an object nor a list with that index.
    """
    _put(_own_container(record, parts), parts, len(parts) - 1, value)


def unset_at(record: Record, parts: Sequence[str]) -> None:
    """Removes what is at a path; an element of a list becomes null. Absent is fine."""
    if get_at(record, parts) is MISSING:
        return
    container = _own_container(record, parts)
    if isinstance(container, list):
        _put(container, parts, len(parts) - 1, None)
    else:
        del container[parts[-1]]


def _own_container(record: Record, parts: Sequence[str]) -> Any:
    """The object or list that holds the end of the path, copied together with all above it."""
    node: Any = record
    for depth, part in enumerate(parts[:-1]):
        child = _step(node, part)
        if child is MISSING:
            child = {}
        elif isinstance(child, dict | list):
            child = child.copy()
        else:
            _refuse(parts[: depth + 1])
        _put(node, parts, depth, child)
        node = child
    return node


def _put(node: Any, parts: Sequence[str], depth: int, value: Any) -> None:
    if isinstance(node, dict):
        node[parts[depth]] = value
        return
    place = list_index(parts[depth])
    if place is None or place > len(node) + MAX_LIST_GAP:
        _refuse(parts[: depth + 1])
    node.extend([None] * (place + 1 - len(node)))
    node[place] = value


def _refuse(way: Sequence[str]) -> NoReturn:
    path = ".".join(way)
    raise QueryRefused(f"'{path}' cannot be changed: what is there has no such field.", field=path)


def project(record: Record, fields: Sequence[Sequence[str]]) -> Record:
    """A record with only these paths and `_id`, through lists of objects."""
    tree: dict[str, Any] = {"_id": None}
    for parts in fields:
        _plant(tree, parts)
    return _pick(record, tree)


def _plant(tree: dict[str, Any], parts: Sequence[str]) -> None:
    for part in parts[:-1]:
        branch = tree.setdefault(part, {})
        if branch is None:  # the whole field is asked for already
            return
        tree = branch
    tree[parts[-1]] = None


def _pick(record: Record, tree: dict[str, Any]) -> Record:
    picked = {}
    for name, value in record.items():
        if name not in tree:
            continue
        branch = tree[name]
        if branch is None:
            picked[name] = value
        elif isinstance(value, dict):
            picked[name] = _pick(value, branch)
        elif isinstance(value, list):
            picked[name] = [_pick(item, branch) for item in value if isinstance(item, dict)]
    return picked

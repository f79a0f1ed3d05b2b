"""The search grammar that all search routes share: filters, order, page, projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from machina.errors import Invalid
from machina.store.base import Sort

MAX_PAGE_SIZE: Final = 5_000
DEFAULT_PAGE_SIZE: Final = 10
_MAX_PAGE: Final = 1_000_000
_MAX_SORTERS: Final = 8
_NEWEST_FIRST: Final[Sort] = (("_id", -1),)
_PUBLIC_NAMES: Final[Mapping[str, str]] = {"id": "_id", "document_id": "_id", "date": "created"}


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search as it was asked for, checked in form; field names are still the caller's."""

    filters: dict[str, Any]
    sort: Sort
    page: int
    page_size: int
    fields: tuple[str, ...] | None
    hidden: tuple[str, ...]
    """Fields to leave out, when the projection says so instead of which to show."""
    compact: bool
    """Leave out what is large; full rows only when `compact` is false."""

    @property
    def skip(self) -> int:
        """How many rows come before this page."""
        return (self.page - 1) * self.page_size

    def project(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the fields that were asked for, and its `_id`."""
        if self.hidden:
            return {name: value for name, value in row.items() if name not in self.hidden}
        if self.fields is None:
            return row
        shown: dict[str, Any] = {}
        for name in ("_id", *self.fields):
            _copy(row, shown, name.split("."))
        return shown


def stored_path(path: str) -> str:
    """The store's path for a path in a client's filters and sorters."""
    top, dot, rest = path.partition(".")
    return f"{_PUBLIC_NAMES.get(top, top)}{dot}{rest}"


def read_search(body: Mapping[str, Any], *, unsorted: Sort = _NEWEST_FIRST) -> SearchQuery:
    """Reads the body of a search; keys it does not know are ignored.

    Raises:
        Invalid: a key has the wrong form; the error names it.
    """
    filters = body.get("filters")
    if filters is None:
        filters = {}
    if not isinstance(filters, dict):
        raise Invalid('\'filters\' must be an object, as {"status": "failed"}.', field="filters")
    fields, hidden = _fields(body.get("fields"))
    return SearchQuery(
        filters=filters,
        sort=_sort(body, unsorted),
        page=_number(body, "page", 1, _MAX_PAGE),
        page_size=_number(body, "page_size", DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
        fields=fields,
        hidden=hidden,
        compact=body.get("compact") is not False,
    )


def _sort(body: Mapping[str, Any], unsorted: Sort) -> Sort:
    sorters = body.get("sorters")
    if sorters:
        return _sorters(sorters)
    text = body.get("sort")
    if not text:
        return unsorted
    if not isinstance(text, str):
        raise Invalid("'sort' must be text, as \"-updated\".", field="sort")
    field = text.lstrip("+-")
    return ((field, -1 if text.startswith("-") else 1),)


def _sorters(sorters: Any) -> Sort:
    """`["field", -1]`, also several in a row, or a list of such pairs."""
    if isinstance(sorters, list) and sorters and isinstance(sorters[0], str):
        sorters = [sorters[at : at + 2] for at in range(0, len(sorters), 2)]
    if not isinstance(sorters, list) or len(sorters) > _MAX_SORTERS:
        raise _bad_sorters()
    pairs = []
    for pair in sorters:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise _bad_sorters()
        if pair[1] not in (1, -1) or isinstance(pair[1], bool):
            raise _bad_sorters()
        pairs.append((pair[0], cast("Literal[1, -1]", int(pair[1]))))
    return tuple(pairs)


def _bad_sorters() -> Invalid:
    return Invalid(
        '\'sorters\' must be ["field", 1] or ["field", -1], or a list of at most '
        f"{_MAX_SORTERS} such pairs.",
        field="sorters",
    )


def _number(body: Mapping[str, Any], key: str, default: int, greatest: int) -> int:
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= greatest:
        raise Invalid(f"'{key}' must be a whole number from 1 to {greatest}.", field=key)
    return value


def _fields(value: Any) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """What to show, None for all of it, and what to leave out."""
    if not value:
        return None, ()
    if isinstance(value, dict):  # the projection as MongoDB writes it
        wanted = [name for name, shown in value.items() if shown]
        hidden = tuple(name for name in value if name != "_id")
        if not wanted:
            return None, hidden
        value = wanted
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Invalid("'fields' must be a list of names.", field="fields")
    return tuple(value), ()


def _copy(source: Any, target: dict[str, Any], path: list[str]) -> None:
    """Copies what a dotted path names, with the objects around it."""
    name, *rest = path
    if not isinstance(source, dict) or name not in source:
        return
    if not rest:
        target[name] = source[name]
    elif isinstance(source[name], dict) and isinstance(target.setdefault(name, {}), dict):
        _copy(source[name], target[name], rest)

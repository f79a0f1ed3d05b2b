"""A caller's query on its way to a collection: other names of fields, dates as text, pages.

For the search routes and templates, whose queries are JSON. A query is checked first, so that a
refusal speaks of the caller's own fields.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from machina.store.base import Collection, Query, QueryRefused, Record, Sort
from machina.store.matching import compile_query, is_operators
from machina.store.ordering import check_field
from machina.store.values import as_utc

_OF_ONE: Final = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte")
_OF_MANY: Final = ("$in", "$nin", "$all")


def rewrite_query(
    query: Query, *, rename: Callable[[str], str] = str, dates: Container[str] = ()
) -> Query:
    """The query with every path renamed, and with dates where a date field is compared with text.

    Args:
        query: as the caller wrote it.
        rename: gives the stored path of a path.
        dates: paths, before renaming, whose operands are dates: in ISO or in mail form.

    Raises:
        QueryRefused: the query is not allowed, or a text is no date; `field` says where.
    """
    compile_query(query)
    return _rewrite(query, rename, dates)


def _rewrite(query: Query, rename: Callable[[str], str], dates: Container[str]) -> dict[str, Any]:
    rewritten: dict[str, Any] = {}
    more: list[dict[str, Any]] = []
    for name, condition in query.items():
        if name.startswith("$"):
            rewritten[name] = [_rewrite(part, rename, dates) for part in condition]
        else:
            meant = _with_dates(name, condition) if name in dates else condition
            target = rename(name)
            if target in rewritten:  # two names of one field: both must hold
                more.append({target: meant})
            else:
                rewritten[target] = meant
    return {"$and": [rewritten, *more]} if more else rewritten


def _with_dates(path: str, condition: Any) -> Any:
    if not is_operators(condition):
        return _date(path, condition)
    return {name: _operand(path, name, operand) for name, operand in condition.items()}


def _operand(path: str, name: str, operand: Any) -> Any:
    if name in _OF_ONE:
        return _date(path, operand)
    if name in _OF_MANY:
        return [_date(path, item) for item in operand]
    return _with_dates(path, operand) if name == "$not" else operand


def _date(path: str, value: Any) -> Any:
    return parse_date(value, path) if isinstance(value, str) else value


def parse_date(text: str, field: str) -> datetime:
    """The moment a text says: ISO 8601 or the form of mail and HTTP; without a zone it is UTC.

    Raises:
        QueryRefused: it says neither.
    """
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return as_utc(parse(text.strip()))
        except (ValueError, OverflowError):
            continue
    raise QueryRefused(
        f"'{field}' is compared with a date such as 2026-01-31T08:00:00Z, not {text!r:.80}.",
        field=field,
    )


def scoped(project: str, query: Mapping[str, Any]) -> dict[str, Any]:
    """The query within one project, whatever it says itself."""
    if "project" in query:
        return {"project": project, "$and": [query]}
    return {**query, "project": project}


def rename_sort(sort: Sort, rename: Callable[[str], str]) -> Sort:
    """The sort with every path renamed. Raises `QueryRefused` for what is no path."""
    return [(rename(check_field(field)), direction) for field, direction in sort]


async def find_page(
    collection: Collection, query: Query, *, sort: Sort, skip: int, limit: int
) -> tuple[list[Record], int]:
    """One page of what matches, and how many match in all; they are counted only if need be."""
    rows = await collection.find(query, sort=sort, skip=skip, limit=limit)
    if len(rows) < limit and (rows or skip == 0):
        return rows, skip + len(rows)
    return rows, await collection.count(query)

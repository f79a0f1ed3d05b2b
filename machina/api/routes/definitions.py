"""Agents, workflows, prompts, connectors, mappings and skills: a router of one shape for each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path

from machina.api import definition_examples as examples
from machina.api.definition_rows import (
    definition_row,
    read_change,
    read_definition,
    saved_answer,
    updated_answer,
)
from machina.api.deps import BodyDep, ResourcesDep
from machina.api.envelopes import Answer, one, page
from machina.api.queries import read_search, stored_path
from machina.api.security import Caller, require
from machina.auth import Principal, Scope
from machina.errors import NotFound
from machina.resources import Resources
from machina.store.base import Record
from machina.store.definitions import Kind
from machina.store.filters import rename_sort, rewrite_query

Target = Annotated[str, Path(description="Id or name.", examples=["hello"])]
IdPath = Annotated[str, Path(description="Id.", examples=[examples.ID])]
NamePath = Annotated[str, Path(description="Name.", examples=["hello"])]

_ADMIN: Final = [Depends(require(Scope.ADMIN))]
"""A client's key reads definitions and writes none."""


class DefinitionRoutes:
    """The routes of one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    async def search(self, body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
        """Newest first, unless told otherwise. Filters reach into what the author wrote by dotted
        paths.
        """
        query = read_search(body)
        records, total = await resources.store.definitions.search(
            caller.project,
            self._kind,
            rewrite_query(query.filters, rename=stored_path),
            sort=rename_sort(query.sort, stored_path),
            skip=query.skip,
            limit=query.page_size,
        )
        rows = [query.project(row) for row in await self._rows(records, caller, resources)]
        return page(rows, total=total, page=query.page, page_size=query.page_size)

    async def read(self, target: Target, caller: Caller, resources: ResourcesDep) -> Answer:
        """Everything as its author wrote it, expressions included, with the server's own fields."""
        found = await self._find(target, caller, resources)
        (row,) = await self._rows([found], caller, resources)
        return one(row)

    async def read_by_id(self, id: IdPath, caller: Caller, resources: ResourcesDep) -> Answer:
        """The same, for an id only."""
        found = await self._find(id, caller, resources)
        if found["_id"] != id:
            raise self._unknown(id)
        (row,) = await self._rows([found], caller, resources)
        return one(row)

    async def read_by_name(self, name: NamePath, caller: Caller, resources: ResourcesDep) -> Answer:
        """The same, for a name only."""
        found = await self._find(name, caller, resources)
        if found["name"] != name:
            raise self._unknown(name)
        (row,) = await self._rows([found], caller, resources)
        return one(row)

    async def create(self, body: BodyDep, caller: Caller, resources: ResourcesDep) -> Answer:
        """Needs an administrator's key. A name that is taken is refused; change or delete that one.
        Unknown fields are kept as they are.
        """
        definition = read_definition(body)
        id = await resources.store.definitions.create(caller.project, self._kind, definition)
        answer = saved_answer(self._kind, id, definition["name"])
        return Answer(answer, 201 if self._kind == "workflow" else 200)

    async def update(
        self, target: Target, body: BodyDep, caller: Caller, resources: ResourcesDep
    ) -> Answer:
        """Needs an administrator's key. Lays the body's fields over the definition; a body of
        `{"data": {…}}` replaces it, and it keeps its name if none is given.
        """
        fields, replaces = read_change(body)
        found = await self._find(target, caller, resources)
        definitions = resources.store.definitions
        change = definitions.replace if replaces else definitions.merge
        changed = await change(caller.project, self._kind, str(found["_id"]), fields)
        if changed is None:
            raise self._unknown(target)
        return Answer(updated_answer(self._kind, definition_row(self._kind, changed)))

    async def delete(self, target: Target, caller: Caller, resources: ResourcesDep) -> Answer:
        """Needs an administrator's key. Runs that have begun are not touched."""
        found = await self._find(target, caller, resources)
        id = str(found["_id"])
        if not await resources.store.definitions.delete(caller.project, self._kind, id):
            raise self._unknown(target)
        return one({"_id": id, "id": id, "name": found["name"]}, f"{self._kind} deleted")

    async def _find(self, target: str, caller: Principal, resources: Resources) -> Record:
        found = await resources.store.definitions.get(caller.project, self._kind, target)
        if found is None:
            raise self._unknown(target)
        return found

    def _unknown(self, target: str) -> NotFound:
        return NotFound(f"There is no {self._kind} '{target[:80]}'.", field=self._kind)

    async def _rows(
        self, records: list[Record], caller: Principal, resources: Resources
    ) -> list[dict[str, Any]]:
        if self._kind != "agent":
            return [definition_row(self._kind, record) for record in records]
        ids = [str(record["_id"]) for record in records]
        last = await resources.attempts.records.last_of(caller.project, ids)
        return [definition_row("agent", record, last.get(str(record["_id"]))) for record in records]


def definition_router(kind: Kind) -> APIRouter:
    """The router of a kind, under `/{kind}`."""
    routes = DefinitionRoutes(kind)
    router = APIRouter(prefix=f"/{kind}", tags=[f"{kind.capitalize()}s"])

    def add(
        method: str,
        path: str,
        endpoint: Callable[..., Coroutine[Any, Any, Answer]],
        summary: str,
        **more: Any,
    ) -> None:
        router.add_api_route(path, endpoint, methods=[method], summary=summary, **more)

    shown, article = examples.of_kind(kind), "An" if kind == "agent" else "A"
    add("POST", "/search", routes.search, f"Search {kind}s", **shown.search)
    add("GET", "/id/{id}", routes.read_by_id, f"{article} {kind} by id", **shown.read)
    add("GET", "/name/{name}", routes.read_by_name, f"{article} {kind} by name", **shown.read)
    add("GET", "/{target}", routes.read, f"{article} {kind}", **shown.read)
    add(
        "POST",
        "",
        routes.create,
        f"Add {article.lower()} {kind}",
        status_code=shown.created,
        dependencies=_ADMIN,
        **shown.create,
    )
    add(
        "PUT",
        "/{target}",
        routes.update,
        f"Change {article.lower()} {kind}",
        dependencies=_ADMIN,
        **shown.update,
    )
    add(
        "DELETE",
        "/{target}",
        routes.delete,
        f"Delete {article.lower()} {kind}",
        dependencies=_ADMIN,
        **shown.delete,
    )
    return router

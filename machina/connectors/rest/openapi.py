"""Reads an OpenAPI document: finds the operation a command means and compiles it once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from machina.connectors.rest.model import Operation, Parameter, Scheme, Server
from machina.connectors.rest.references import dereference

METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options", "trace")
_BEARER_TYPES: Final = ("oauth2", "openidconnect", "bearer")


class Api:
    """One API. Operations are compiled when they are first asked for. Never changes otherwise."""

    def __init__(
        self, document: Mapping[str, Any], aliases: Mapping[str, str] | None = None
    ) -> None:
        """`aliases` are further names of commands."""
        self._document = document
        self._aliases = aliases or {}
        paths = document.get("paths")
        self._paths: Mapping[str, Any] = paths if isinstance(paths, Mapping) else {}
        self._by_path = {_plain(path): path for path in self._paths if isinstance(path, str)}
        self._compiled: dict[str, Operation] = {}
        self.schemes = _read_schemes(document)
        self.server = _read_server(document)

    def find(self, command: str) -> Operation | None:
        """The operation of a command: `<verb>-<path template>`, or its operationId."""
        known = self._compiled.get(command)
        if known is None:
            name = command.strip()
            known = self._find(self._aliases.get(name, name))
            if known is not None:
                self._compiled[command] = known
        return known

    def near(self, command: str) -> list[str]:
        """Commands there are that look like this one; else some of those there are."""
        names = [f"{method}-{path.lstrip('/')}" for method, path, _ in self._operations()]
        return difflib.get_close_matches(command, names, n=3, cutoff=0.4) or names[:3]

    def _find(self, command: str) -> Operation | None:
        verb, dash, rest = command.partition("-")
        path = self._by_path.get(_plain(rest))
        if dash and path is not None and verb.lower() in METHODS:
            item = dereference(self._document, self._paths[path])
            if isinstance(item.get(verb.lower()), Mapping):
                return self._compile(verb.lower(), path, item)
        for method, path, item in self._operations():
            if item[method].get("operationId") == command:
                return self._compile(method, path, item)
        return None

    def _operations(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        for path in self._by_path.values():
            item = dereference(self._document, self._paths[path])
            for method in METHODS:
                if isinstance(item.get(method), Mapping):
                    yield method, path, item

    def _compile(self, method: str, path: str, item: Mapping[str, Any]) -> Operation:
        operation = item[method]
        parameters: dict[tuple[str, str], Parameter] = {}
        for node in (*_list(item.get("parameters")), *_list(operation.get("parameters"))):
            parameter = self._parameter(node)
            if parameter is not None:
                parameters[parameter.name, parameter.place] = parameter
        body = dereference(self._document, operation.get("requestBody"))
        content = body.get("content")
        return Operation(
            method=method.upper(),
            path=path,
            parameters=tuple(parameters.values()),
            content_types=tuple(map(str, content)) if isinstance(content, Mapping) else (),
            server=_read_server(operation) or _read_server(item),
            security=_read_security(operation) or _read_security(self._document),
        )

    def _parameter(self, node: Any) -> Parameter | None:
        found = dereference(self._document, node)
        name, place = found.get("name"), found.get("in")
        if not isinstance(name, str) or not isinstance(place, str):
            return None
        schema = dereference(self._document, found.get("schema"))
        style = found.get("style")
        explode = found.get("explode")
        return Parameter(
            name=name,
            place=place.lower(),
            default=schema.get("default", found.get("default")),
            style=style if isinstance(style, str) else "form",
            explode=explode if isinstance(explode, bool) else style in (None, "form", "deepObject"),
        )


def _plain(path: str) -> str:
    return path.strip().strip("/")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_server(owner: Mapping[str, Any]) -> Server | None:
    """The first of `servers`."""
    for entry in _list(owner.get("servers")):
        url = entry.get("url") if isinstance(entry, Mapping) else None
        if isinstance(url, str) and url.strip():
            return Server(url.strip(), _read_variables(entry.get("variables")))
    return None


def _read_variables(variables: Any) -> dict[str, tuple[Any, tuple[str, ...]]]:
    found = {}
    for name, entry in variables.items() if isinstance(variables, Mapping) else ():
        if isinstance(entry, Mapping):
            found[str(name)] = (entry.get("default"), tuple(map(str, _list(entry.get("enum")))))
    return found


def _read_security(owner: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    requirements = _list(owner.get("security"))
    return tuple(tuple(map(str, r)) for r in requirements if isinstance(r, Mapping) and r)


def _read_schemes(document: Mapping[str, Any]) -> tuple[Scheme, ...]:
    """The schemes, which authors also put at the root of the document."""
    components = dereference(document, document.get("components"))
    places = (document, components)
    found: dict[str, Scheme] = {}
    for owner in places:
        for field in ("securityDefinitions", "securitySchemes"):
            nodes = owner.get(field)
            for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
                scheme = _read_scheme(str(name), dereference(document, node))
                if scheme is not None:
                    found[scheme.id] = scheme
    return tuple(found.values())


def _read_scheme(identifier: str, node: Mapping[str, Any]) -> Scheme | None:
    kind = str(node.get("type") or "").lower()
    name = node.get("name")
    place = str(node.get("in") or "header").lower()
    if kind in ("apikey", "params"):
        kind = "key" if kind == "apikey" else "params"
        return Scheme(identifier, kind, name if isinstance(name, str) else identifier, place)
    scheme = str(node.get("scheme") or "").lower()
    if kind in _BEARER_TYPES or scheme == "bearer":
        return Scheme(identifier, "bearer", "Authorization")
    if kind == "basic" or scheme == "basic":
        return Scheme(identifier, "basic", "Authorization")
    return Scheme(identifier, "other", "Authorization") if kind == "http" else None

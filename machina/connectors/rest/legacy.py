"""Translates the home-grown description of a REST API into the OpenAPI document it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from machina.connectors.rest.openapi import METHODS


def is_legacy(definition: Mapping[str, Any]) -> bool:
    """Whether a connector describes its API with `host` and `commands[].path`."""
    return isinstance(definition.get("host"), str) and any(_commands(definition))


def translate(definition: Mapping[str, Any]) -> dict[str, Any]:
    """`version, scheme, host, base_path, auth, commands[]` as an OpenAPI document.

    A command can be called by its `value`, its `name`, or `<verb>-<path>` like any operation.
    """
    paths: dict[str, dict[str, Any]] = {}
    for command, path in _commands(definition):
        method = str(command.get("method") or "get").lower()
        if method in METHODS:
            paths.setdefault("/" + path.strip("/"), {})[method] = _operation(command, path, method)
    return {
        "openapi": "3.0.3",
        "servers": [{"url": _base_url(definition)}],
        "paths": paths,
        "securitySchemes": _schemes(definition.get("auth")),
    }


def aliases(definition: Mapping[str, Any]) -> dict[str, str]:
    """Names of commands that are not operationIds, with the command they stand for."""
    found: dict[str, str] = {}
    for command, path in _commands(definition):
        method = str(command.get("method") or "get").lower()
        for name in (command.get("value"), command.get("name")):
            if isinstance(name, str):
                found.setdefault(name, f"{method}-{path.strip('/')}")
    return found


def _commands(definition: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    commands = definition.get("commands")
    if isinstance(commands, Mapping):
        commands = [{"name": name, **c} for name, c in commands.items() if isinstance(c, Mapping)]
    for command in commands if isinstance(commands, list) else ():
        path = command.get("path") if isinstance(command, Mapping) else None
        if isinstance(path, str):
            yield command, path


def _base_url(definition: Mapping[str, Any]) -> str:
    host = definition["host"].strip().rstrip("/")
    base = str(definition.get("base_path") or "").strip("/")
    scheme = str(definition.get("scheme") or "https").removesuffix("://")
    url = host if "://" in host else f"{scheme}://{host}"
    return f"{url}/{base}" if base else url


def _operation(command: Mapping[str, Any], path: str, method: str) -> dict[str, Any]:
    parameters, body = [], False
    for name, entry in _parameters(command.get("parameters")):
        place = entry.get("in")
        if place == "body":
            body = True
            continue
        if not isinstance(place, str):
            place = "path" if f"{{{name}}}" in path else "query"
        if place == "query" and "in" not in entry and method in ("post", "put", "patch"):
            body = True
            continue
        schema = {"default": entry["default"]} if "default" in entry else {}
        parameters.append({"name": name, "in": place, "schema": schema})
    operation: dict[str, Any] = {"parameters": parameters}
    if body:
        operation["requestBody"] = {"content": {"application/json": {}}}
    return operation


def _parameters(declared: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Parameters are a list of names or of objects, or an object by name."""
    if isinstance(declared, Mapping):
        for name, entry in declared.items():
            yield str(name), entry if isinstance(entry, Mapping) else {}
    for entry in declared if isinstance(declared, list) else ():
        if isinstance(entry, str):
            yield entry, {}
        elif isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            yield entry["name"], entry


def _schemes(auth: Any) -> dict[str, Any]:
    """`auth` is a scheme, its type as a word, or schemes by name."""
    if isinstance(auth, str):
        auth = {"type": auth}
    if not isinstance(auth, Mapping):
        return {}
    if not isinstance(auth.get("type"), str):
        return {str(name): s for name, s in auth.items() if isinstance(s, Mapping)}
    kind = auth["type"].lower().replace("_", "").replace("-", "")
    name = next((auth[k] for k in ("name", "header", "key", "param") if k in auth), "api_key")
    place = auth.get("in") or ("query" if "param" in auth else "header")
    known = {
        "apikey": {"type": "apiKey", "name": str(name), "in": place},
        "header": {"type": "apiKey", "name": str(name), "in": "header"},
        "query": {"type": "apiKey", "name": str(name), "in": "query"},
        "params": {"type": "params", "name": str(name), "in": auth.get("in") or "query"},
        "bearer": {"type": "http", "scheme": "bearer"},
        "bearertoken": {"type": "http", "scheme": "bearer"},
        "oauth2": {"type": "oauth2"},
        "basic": {"type": "http", "scheme": "basic"},
        "http": {"type": "http", "scheme": auth.get("scheme")},
    }
    return {"auth": known[kind]} if kind in known else {}

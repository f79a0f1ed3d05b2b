"""The home-grown REST form of a connector, translated to OpenAPI.

Its fields: `scheme`, `host`, `base_path`, `auth`, and `commands` with `name`, `method`, `path`,
`parameters` (docs of the format, section 6.1). It occurs rarely and varies, so that every field may
be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_METHODS: Final = ("get", "post", "put", "patch", "delete", "head", "options")
_WITH_BODY: Final = ("post", "put", "patch")
_PLACES: Final = ("path", "query", "header", "cookie")
_SCHEME: Final = "auth"


def is_home_grown(connector: Mapping[str, Any]) -> bool:
    """Whether a connector describes its operations itself, and nothing else does."""
    if connector.get("filecontent") or connector.get("apiSpec") or not connector.get("host"):
        return False
    return any(True for _ in _operations(connector))


def translate(connector: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI document of a home-grown connector."""
    paths: dict[str, dict[str, Any]] = {}
    for command, method, path in _operations(connector):
        paths.setdefault(path, {})[method] = _operation(command, method, path)
    document: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {
            "title": str(connector.get("title") or connector.get("name") or ""),
            "version": str(connector.get("version") or "1"),
        },
        "servers": [{"url": _server(connector)}],
        "paths": paths,
    }
    scheme = _security_scheme(connector.get("auth"))
    if scheme is not None:
        document["components"] = {"securitySchemes": {_SCHEME: scheme}}
        document["security"] = [{_SCHEME: []}]
    return document


def _operations(connector: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    commands = connector.get("commands")
    for command in commands if isinstance(commands, list) else ():
        if not isinstance(command, Mapping) or not isinstance(command.get("path"), str):
            continue
        method = str(command.get("method") or "get").lower()
        if method in _METHODS:
            yield command, method, "/" + command["path"].lstrip("/")


def _server(connector: Mapping[str, Any]) -> str:
    host = str(connector["host"]).strip().rstrip("/")
    if "://" not in host:
        scheme = connector.get("scheme") or connector.get("schemes") or "https"
        host = f"{scheme[0] if isinstance(scheme, list) else scheme}://{host}"
    base = str(connector.get("base_path") or "").strip("/")
    return f"{host}/{base}" if base else host


def _operation(command: Mapping[str, Any], method: str, path: str) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    for parameter in _parameters(command.get("parameters")):
        name = parameter["name"]
        place = "path" if f"{{{name}}}" in path else parameter.get("in")
        if place not in _PLACES:
            place = "body" if method in _WITH_BODY else "query"
        schema = {"type": parameter["type"]} if isinstance(parameter.get("type"), str) else {}
        if place == "body":
            fields[name] = schema
        else:
            required = place == "path" or parameter.get("required") is True
            parameters.append({"name": name, "in": place, "required": required, "schema": schema})
    label = command.get("value") or command.get("name")
    operation: dict[str, Any] = {
        **({"operationId": str(label)} if label else {}),
        "parameters": parameters,
        "responses": {"default": {"description": str(command.get("description") or "")}},
    }
    if method in _WITH_BODY:
        schema = {"type": "object", "properties": fields}
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _parameters(value: Any) -> Iterator[dict[str, Any]]:
    """Parameters written as a list of objects or names, or as an object by their names."""
    if isinstance(value, Mapping):
        value = [
            {"name": name, **(item if isinstance(item, Mapping) else {})}
            for name, item in value.items()
        ]
    for item in value if isinstance(value, list) else ():
        if isinstance(item, str):
            yield {"name": item}
        elif isinstance(item, Mapping) and isinstance(item.get("name"), str):
            yield dict(item)


def _security_scheme(auth: Any) -> dict[str, Any] | None:
    if isinstance(auth, str):
        auth = {"type": auth}
    if not isinstance(auth, Mapping):
        return None
    kind = str(auth.get("type") or auth.get("scheme") or "").lower()
    for scheme in ("bearer", "basic"):
        if scheme in kind or str(auth.get("scheme") or "").lower() == scheme:
            return {"type": "http", "scheme": scheme}
    if "key" not in kind:
        return None
    place = str(auth.get("in") or auth.get("location") or "header").lower()
    keys = ("name", "header", "param", "parameter", "key")
    name = next((auth[key] for key in keys if isinstance(auth.get(key), str)), "x-api-key")
    return {"type": "apiKey", "in": place if place in _PLACES else "header", "name": name}

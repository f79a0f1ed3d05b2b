"""Puts a request together: which input goes into the path, the query, a header or the body."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from machina.connectors.base import ConnectorCall
from machina.connectors.rest.auth import Authentication, Fields, authenticate
from machina.connectors.rest.model import Operation, Parameter, Scheme
from machina.connectors.rest.texts import encode_path, encode_query, flat_pairs, text_of
from machina.errors import ConnectorFailed

_SLOT: Final = re.compile(r"\{([^{}]+)\}")
_WITH_BODY: Final = ("POST", "PUT", "PATCH")
_MISSING: Final = object()
_SEPARATORS: Final = {"spaceDelimited": " ", "pipeDelimited": "|"}


@dataclass(slots=True)
class Draft:
    """A request whose body is not encoded yet. `has_body` False: there is none."""

    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    has_body: bool = False

    def has(self, name: str, place: str) -> bool:
        """Whether there is a value for this parameter already."""
        if place == "query":
            return any(known == name for known, _ in self.query)
        if place == "cookie":
            pairs = self.headers.get("Cookie", "").split(";")
            return any(pair.strip().partition("=")[0] == name for pair in pairs)
        return any(known.lower() == name.lower() for known in self.headers)

    def url(self, base: str) -> str:
        """The whole URL."""
        return base + self.path + (f"?{encode_query(self.query)}" if self.query else "")


def draft(call: ConnectorCall, operation: Operation, schemes: tuple[Scheme, ...]) -> Draft:
    """The request of a call of an operation.

    What the task says itself comes first, then the keys, then other declared parameters that the
    connector's context variables have a value for.

    Raises:
        ConnectorFailed: `connector_failed`, a path parameter has no value.
    """
    template, _, fixed = operation.path.partition("?")
    fields = Fields(call.credentials)
    rest = dict(call.inputs)
    made = Draft(operation.method, "/" + _fill_path(template, call, operation, fields).lstrip("/"))
    for name in _SLOT.findall(operation.path):
        rest.pop(name, None)
    filled = _fill_path(fixed, call, operation, fields) if fixed else ""
    made.query += parse_qsl(filled, keep_blank_values=True)
    declared = [p for p in operation.parameters if p.place in ("query", "header", "cookie")]
    declared += [p for p in _keys(schemes) if not operation.declares(p.name, p.place)]
    for parameter in declared:
        _place(made, parameter, _said(parameter, call, rest))
    _place_rest(made, operation, rest)
    _add_headers(made, call.block.get("headers"))
    _authenticate(made, authenticate(schemes, operation, call.credentials, call.inputs))
    for parameter in declared:
        if not made.has(parameter.name, parameter.place):
            _place(made, parameter, fields.first(parameter.name))
    return made


def _keys(schemes: tuple[Scheme, ...]) -> list[Parameter]:
    """Keys that tasks pass as inputs although the document has them as security schemes."""
    return [
        Parameter(scheme.name, scheme.place)
        for scheme in schemes
        if scheme.kind == "params" or (scheme.kind == "key" and scheme.place == "query")
    ]


def _fill_path(template: str, call: ConnectorCall, operation: Operation, fields: Fields) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        value = _path_value(name, call, operation, fields)
        text = "" if value is None else text_of(value)
        if text in ("", ".", ".."):
            raise ConnectorFailed(
                f"{call.where} calls '{call.command}' of connector '{call.name}' without a usable "
                f"value for '{name}' in its path; give it in command_attribute."
            )
        return encode_path(text)

    return _SLOT.sub(fill, template)


def _path_value(name: str, call: ConnectorCall, operation: Operation, fields: Fields) -> Any:
    """From command_attribute, else the inputs, else what the connector itself says."""
    for source in (call.attributes, call.inputs):
        if source.get(name) is not None:
            return source[name]
    default = next(
        (p.default for p in operation.parameters if p.name == name and p.place == "path"), None
    )
    return fields.first(name) or default


def _said(parameter: Parameter, call: ConnectorCall, rest: dict[str, Any]) -> Any:
    """What the task itself says: an input, which is taken out of `rest`, or a command attribute."""
    value = rest.pop(parameter.name, None)
    if value is None and parameter.place == "header":  # their names have no case
        folded = parameter.name.lower()
        for name in [name for name in rest if name.lower() == folded]:
            value = rest.pop(name)
    return call.attributes.get(parameter.name) if value is None else value


def _place(made: Draft, parameter: Parameter, value: Any) -> None:
    if value is None:
        return
    if parameter.place == "query":
        made.query += _query_pairs(parameter, value)
    elif parameter.place == "cookie":
        _add_cookie(made, parameter.name, text_of(value))
    else:
        is_list = isinstance(value, list | tuple)
        text = ",".join(map(text_of, value)) if is_list else text_of(value)
        made.headers[parameter.name] = text


def _query_pairs(parameter: Parameter, value: Any) -> list[tuple[str, str]]:
    name = parameter.name
    if isinstance(value, Mapping) and parameter.style == "deepObject":
        return [pair for key, part in value.items() for pair in flat_pairs(f"{name}[{key}]", part)]
    if isinstance(value, list | tuple) and not parameter.explode:
        items = [text_of(item) for item in value if item is not None]
        return [(name, _SEPARATORS.get(parameter.style, ",").join(items))] if items else []
    return flat_pairs(name, value)


def _place_rest(made: Draft, operation: Operation, rest: dict[str, Any]) -> None:
    """What is not declared: `body` is the body, without it a POST sends all as JSON."""
    body = _MISSING
    if made.method in _WITH_BODY or operation.content_types:
        body = rest.pop("body", _MISSING)
    elif made.method == "DELETE" and isinstance(rest.get("body"), Mapping | list):
        body = rest.pop("body")
    if body is _MISSING and made.method in _WITH_BODY and rest:
        made.body, made.has_body = rest, True
        return
    if body is not _MISSING and body is not None:
        made.body, made.has_body = body, True
    for name, value in rest.items():
        made.query += flat_pairs(name, value)


def _add_headers(made: Draft, headers: Any) -> None:
    """Headers that the task has in its connector block; nulls are secrets that nobody set."""
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        text = text_of(value).strip() if value is not None else ""
        if text and not made.has(str(name), "header"):
            made.headers[str(name)] = text


def _authenticate(made: Draft, authentication: Authentication) -> None:
    for name, value in authentication.query.items():
        if not made.has(name, "query"):
            made.query.append((name, value))
    for name, value in authentication.headers.items():
        if not made.has(name, "header"):
            made.headers[name] = value
    for name, value in authentication.cookies.items():
        if not made.has(name, "cookie"):
            _add_cookie(made, name, value)


def _add_cookie(made: Draft, name: str, value: str) -> None:
    before = made.headers.get("Cookie")
    pair = f"{name}={value}"
    made.headers["Cookie"] = pair if before is None else f"{before}; {pair}"

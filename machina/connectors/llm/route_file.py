"""Reads the routing table that an operator wrote: strictly, with errors that say what to change."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final

import yaml

from machina.connectors.llm.endpoint import read_base_url
from machina.connectors.llm.routes import MATCHED, Route, RouteTable, Rule
from machina.errors import SettingsInvalid

VARIABLE: Final = "MACHINA_MODEL_ROUTES"
MAX_FILE_BYTES: Final = 256 * 1024
MAX_RULES: Final = 500
"""Of chat and of embeddings."""
MAX_PATTERN: Final = 200

_SECTIONS: Final = ("chat", "embeddings")
_TARGET_FIELDS: Final = ("provider", "model", "base_url", "api_key_variable")
_ENDPOINT_FIELDS: Final = ("base_url", "api_key_variable")
_ENDPOINT: Final = "openai-compatible"
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


def read_routes(text: str, path: str, providers: Collection[str]) -> RouteTable:
    """The rules of a file, without the built-in ones that follow them.

    Args:
        text: YAML or JSON: `chat` and `embeddings`, each a list of rules.
        path: where it came from, for messages.
        providers: the names a rule may lead to.

    Raises:
        SettingsInvalid: names the file, the rule and the remedy.
    """
    return _Reader(path, providers).table(text)


class _Reader:
    def __init__(self, path: str, providers: Collection[str]) -> None:
        self._path = path
        self._providers = providers

    def table(self, text: str) -> RouteTable:
        content = self._parsed(text)
        if content is None:
            return RouteTable((), ())
        if not isinstance(content, Mapping):
            raise self._wrong("it holds no rules; write them under 'chat' and 'embeddings'")
        self._check_fields(content, _SECTIONS, "the file")
        chat, embeddings = (self._rules(content.get(name), name) for name in _SECTIONS)
        return RouteTable(chat, embeddings)

    def _parsed(self, text: str) -> Any:
        try:
            if text.lstrip("\ufeff \t\r\n").startswith("{"):
                return json.loads(text.lstrip("\ufeff"), object_pairs_hook=_unique)
            return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # a SafeLoader, stricter
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = " ".join(str(error).split())[:300]
            raise self._wrong(f"it is neither YAML nor JSON ({problem})") from None

    def _rules(self, rules: Any, section: str) -> list[Rule]:
        if rules is None:
            return []
        if not isinstance(rules, list):
            raise self._wrong(f"'{section}' must be a list of rules")
        if len(rules) > MAX_RULES:
            raise self._wrong(f"'{section}' has more than {MAX_RULES} rules; use patterns with *")
        return [self._rule(rule, f"{section}, rule {n}") for n, rule in enumerate(rules, start=1)]

    def _rule(self, rule: Any, entry: str) -> Rule:
        if not isinstance(rule, Mapping):
            raise self._wrong(f"{entry} must be a dictionary with 'to'")
        self._check_fields(rule, (*MATCHED, "to"), entry)
        patterns = {
            name: self._text(rule[name], f"{entry}, '{name}'").casefold()
            for name in MATCHED
            if name in rule
        }
        return Rule(self._route(rule.get("to"), entry), patterns)

    def _route(self, target: Any, entry: str) -> Route:
        if not isinstance(target, Mapping):
            raise self._wrong(f"{entry} needs 'to', a dictionary with the provider that answers")
        where = f"{entry}, 'to'"
        self._check_fields(target, _TARGET_FIELDS, where)
        given = {name: self._text(value, f"{where}, '{name}'") for name, value in target.items()}
        provider = given.get("provider")
        if provider not in self._providers:
            known = ", ".join(sorted(self._providers))
            raise self._wrong(f"{where}: 'provider' must be one of {known}, not {provider!r}")
        for name in _ENDPOINT_FIELDS:
            if name in given and provider != _ENDPOINT:
                raise self._wrong(f"{where}: '{name}' goes with the provider {_ENDPOINT} only")
        self._check_endpoint(given, where)
        return Route(**given)

    def _check_endpoint(self, given: Mapping[str, str], where: str) -> None:
        url, variable = given.get("base_url"), given.get("api_key_variable")
        if url is not None:
            try:
                read_base_url(url, "'base_url'", "the variable that 'api_key_variable' names")
            except SettingsInvalid as invalid:
                raise self._wrong(f"{where}: {invalid.message.rstrip('.')}") from None
        if variable is not None and not _VARIABLE_NAME.match(variable):
            raise self._wrong(
                f"{where}: 'api_key_variable' must be the name of an environment variable; "
                "put the key itself into that variable, not into this file"
            )

    def _check_fields(self, block: Mapping[Any, Any], known: Collection[str], where: str) -> None:
        for name in block:
            if name not in known:
                raise self._wrong(f"{where}: {str(name)[:40]!r} is unknown; use {', '.join(known)}")

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_PATTERN:
            raise self._wrong(f"{where} must be a text of 1 to {MAX_PATTERN} characters")
        return value.strip()

    def _wrong(self, what: str) -> SettingsInvalid:
        return SettingsInvalid(
            f"{VARIABLE}={self._path}: {what}. docs/models.md describes the file.", field=VARIABLE
        )


class _StrictLoader(yaml.SafeLoader):
    """A SafeLoader that refuses a key given twice; YAML itself would drop the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        _refuse_twice([key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice([name for name, _ in pairs])
    return dict(pairs)


def _refuse_twice(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name[:40]!r} is given twice")
        seen.add(name)

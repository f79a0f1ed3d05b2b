"""Which provider and model stand in for the ones that a template names: the routing table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

LLM_CONNECTORS: Final = frozenset(
    (
        "azure-foundry",
        "google-genai",
        "groq",
        "machina-ai",
        "machina-ai-fast",
        "nvidia-nim",
        "openai",
        "vertex-embedding",
    )
)
"""Connectors that stand for a model whether they are installed or not (machina-format.md 6.5)."""
MATCHED: Final = ("connector", "provider", "model", "profile")
"""The fields of a connector block that a rule can look at."""
AUTHORS_MODEL: Final = "*"
"""As the model of a route: the one the template names, if it names one."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes. `model` None is the operator's default model."""

    provider: str
    """A name of `PROVIDERS`."""
    model: str | None = None
    base_url: str | None = None
    """None: the configured one."""
    api_key_variable: str | None = None
    """The environment variable that holds the key. With a base URL of its own and no variable no
    key is sent: the configured key is not for other hosts."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A route and what a connector block must look like to take it."""

    route: Route
    patterns: Mapping[str, str] = field(default_factory=dict)
    """By field of `MATCHED`; `*` stands for any text, none included. Case does not count."""

    def matches(self, block: Mapping[str, str]) -> bool:
        """Whether every pattern matches."""
        return all(matches(pattern, block[name]) for name, pattern in self.patterns.items())

    def names(self, connector: str) -> bool:
        """Whether the rule speaks of this connector in particular."""
        pattern = self.patterns.get("connector", "*")
        return bool(pattern.strip("*")) and matches(pattern, connector.casefold())


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Rules for chat and for embeddings; of each, the first that matches decides."""

    chat: Sequence[Rule]
    embeddings: Sequence[Rule]

    def chat_route(self, block: Mapping[str, Any]) -> Route:
        """The route of a prompt task's connector block, with its model filled in."""
        return _route(self.chat, block)

    def embedding_route(self, block: Mapping[str, Any]) -> Route:
        """The route of the connector block of a search or a write, with its model filled in."""
        return _route(self.embeddings, block)

    def serves(self, connector: str) -> bool:
        """Whether a connector of this name is a model without being installed."""
        rules = (*self.chat, *self.embeddings)
        return connector in LLM_CONNECTORS or any(rule.names(connector) for rule in rules)


def default_table(has_endpoint: bool) -> RouteTable:
    """The table without a file; an operator's rules come before it.

    Args:
        has_endpoint: whether an OpenAI-compatible provider is configured. Then everything goes
            there: with the template's model when its connector or provider is `openai`, else with
            the operator's, since an endpoint rarely knows the models of another vendor. Without
            one the scripted model answers.
    """
    named = [
        Rule(Route("scripted"), {"provider": "scripted"}),
        Rule(Route("openai-compatible", AUTHORS_MODEL), {"provider": "openai-compatible"}),
    ]
    if not has_endpoint:
        everything = [Rule(Route("scripted"))]
        return RouteTable(chat=[*named, *everything], embeddings=everything)
    endpoint = Rule(Route("openai-compatible"))
    own_model = Route("openai-compatible", AUTHORS_MODEL)
    return RouteTable(
        chat=[
            *named,
            Rule(own_model, {"connector": "openai"}),
            Rule(own_model, {"provider": "openai"}),
            endpoint,
        ],
        # One model for all texts, so that what one template wrote another one finds.
        embeddings=[
            Rule(Route("scripted"), {"provider": "scripted"}),
            Rule(own_model, {"connector": "openai", "model": "text-embedding-3-*"}),
            Rule(own_model, {"connector": "openai", "model": "text-embedding-ada-*"}),
            endpoint,
        ],
    )


def matches(pattern: str, text: str) -> bool:
    """Whether a text has the shape of a pattern in which `*` stands for anything.

    Both are compared as they are: fold their case first. Time grows with the length of the text.
    """
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *inner, last = others
    if len(text) < len(first) + len(last) or not text.startswith(first):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in inner:
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return text.endswith(last)


def _route(rules: Sequence[Rule], block: Mapping[str, Any]) -> Route:
    wanted = {name: _text(block.get("name" if name == "connector" else name)) for name in MATCHED}
    if not wanted["model"]:
        wanted["model"] = _text(block.get("model_name"))
    folded = {name: text.casefold() for name, text in wanted.items()}
    route = next(rule.route for rule in rules if rule.matches(folded))
    if route.model != AUTHORS_MODEL:
        return route
    return Route(route.provider, wanted["model"] or None, route.base_url, route.api_key_variable)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""

"""Asking a provider in a test, and what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from machina.connectors.llm import ChatDelta, ChatRequest, Provider, Usage
from machina.errors import ModelFailed


@dataclass
class Answer:
    """The deltas up to the end or the failure."""

    deltas: list[ChatDelta] = field(default_factory=list)
    failure: ModelFailed | None = None

    @property
    def texts(self) -> list[str]:
        return [delta.text for delta in self.deltas if delta.text]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def finish_reason(self) -> str | None:
        return self.deltas[-1].finish_reason if self.deltas else None

    @property
    def usage(self) -> Usage | None:
        return self.deltas[-1].usage if self.deltas else None

    @property
    def code(self) -> str | None:
        return self.failure.code if self.failure else None

    @property
    def limit(self) -> Any:
        return self.failure.details.get("limit") if self.failure else None


def request(model: str | None = None, says: str = "Hello", **options: Any) -> ChatRequest:
    """A request with one message of the user."""
    return ChatRequest(messages=[{"role": "user", "content": says}], model=model, **options)


async def ask(
    provider: Provider, model: str | None = None, says: str = "Hello", **options: Any
) -> Answer:
    """The whole answer to one message."""
    return await gather(provider.chat(request(model, says, **options)))


async def gather(deltas: AsyncIterator[ChatDelta]) -> Answer:
    """All that comes, and the failure that ends it, if one does."""
    answer = Answer()
    try:
        async for delta in deltas:
            answer.deltas.append(delta)
    except ModelFailed as failure:
        answer.failure = failure
    return answer

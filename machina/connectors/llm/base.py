"""The ports of a provider of models: a request in, deltas of text out; texts in, vectors out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = Mapping[str, Any]
"""`{"role": …, "content": …}` as the caller wrote it; passed on unchanged."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens a call cost, as the provider counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call of a model. `schema` asks for an answer of that JSON shape."""

    messages: Sequence[Message]
    model: str | None = None
    """None: the provider's default."""
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_seconds: float | None = None
    """In total; the provider's own limit holds when it is shorter or this is None."""
    schema: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Options of one provider only; unknown ones are ignored."""


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of the answer. The last one carries `finish_reason` and, when known, `usage`."""

    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None


class Provider(Protocol):
    """A vendor of models, or something that answers like one. One instance per process."""

    name: str

    def chat(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Streams the answer; closing the iterator early closes the connection to the provider.

        Raises:
            ModelFailed: with a stable code: `provider_unauthorized`, `provider_not_found`,
                `provider_rate_limited`, `provider_rejected`, `provider_unavailable`,
                `provider_timeout`, `provider_cut`, `provider_invalid`; `details.partial` says
                whether text came before it, and after a timeout `details.limit` which limit it was.
        """

    async def aclose(self) -> None:
        """Closes pooled connections."""


class Embeddings(list[list[float]]):
    """One vector per text, in the order of the texts, and what they cost."""

    def __init__(
        self, vectors: Iterable[list[float]] = (), *, usage: Usage | None = None, model: str = ""
    ) -> None:
        super().__init__(vectors)
        self.usage = usage or Usage()
        self.model = model


class Embedder(Protocol):
    """A vendor of embeddings. One instance per process, mostly the one that is the `Provider`."""

    name: str

    async def embed(
        self,
        texts: Sequence[str],
        model: str | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Embeddings:
        """One vector per text, all of one length; very long texts are cut.

        Args:
            texts: any number; they are sent in batches.
            model: None is the vendor's default.
            timeout_seconds: in total; the vendor's own limit holds when it is shorter or unset.

        Raises:
            ModelFailed: with the codes of `Provider.chat`.
        """


class RoutedEmbedder(Protocol):
    """The embedder that a connector block leads to, with the model already chosen."""

    space: str
    """Names what the vectors mean: only vectors of one space can be compared."""

    async def embed(
        self, texts: Sequence[str], *, timeout_seconds: float | None = None
    ) -> Embeddings:
        """See `Embedder.embed`."""

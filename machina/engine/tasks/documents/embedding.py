"""Which text of a document is embedded, and the vectors of many of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from machina.engine.blocks import evaluate_value
from machina.engine.borders import compact_json
from machina.engine.document_door import Draft, Meaning
from machina.engine.tasks.base import TaskCall
from machina.engine.tasks.documents.config import is_on, read_connector
from machina.errors import BudgetExceeded, ExpressionFailed, ModelFailed, RunError
from machina.expressions import Scope

log = structlog.get_logger(__name__)

BATCH: Final = 100
"""Texts in one call of an embedder."""
MAX_TEXT: Final = 30_000
"""Characters of one text: more than any embedding model reads."""
MAX_DIMENSION: Final = 8_192


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a task says about embedding what it writes."""

    call: TaskCall
    connector: Mapping[str, Any]
    selector: Any

    @classmethod
    async def read(cls, call: TaskCall, config: Mapping[str, Any]) -> Embedding | None:
        """None when the task does not embed; then its connector means nothing."""
        if not is_on(config.get("embed-vector")):
            return None
        return cls(call, await read_connector(call, config), config.get("embed-selector"))

    async def add(self, drafts: Sequence[Draft]) -> list[Draft]:
        """The drafts with their vectors; those that cannot be embedded go without, and are logged.

        A document is worth more than its vector, so no failure here is the task's.
        """
        texts = [await self._text(draft.value) for draft in drafts]
        meanings: list[Meaning | None] = []
        for start in range(0, len(texts), BATCH):
            meanings += await self._meanings(texts[start : start + BATCH])
        return [
            replace(draft, meaning=meaning, embeds=True)
            for draft, meaning in zip(drafts, meanings, strict=True)
        ]

    async def _text(self, item: Any) -> str:
        """What stands for an item: what the selector gives, else its most telling field."""
        if self.selector is None:
            return text_of(item)
        scope = Scope(item, context=self.call.state, secrets=self.call.ctx.secrets)
        where = f"{self.call.where}, config.embed-selector"
        try:
            selected = await evaluate_value(self.call.ctx, self.selector, scope, where)
        except BudgetExceeded:
            raise
        except ExpressionFailed as error:
            log.warning("expression.failed", where=where, error=error.message)
            return text_of(item)
        return _bounded(selected) or text_of(item)

    async def _meanings(self, texts: Sequence[str]) -> list[Meaning | None]:
        found: list[Meaning | None] = [None] * len(texts)
        places = [place for place, text in enumerate(texts) if text]
        if not places:
            return found
        try:
            meanings = await embed(self.call, self.connector, [texts[place] for place in places])
        except RunError as error:
            log.warning(
                "documents.embedding_failed",
                where=self.call.where,
                code=error.code,
                error=error.message,
                documents=len(places),
            )
            return found
        for place, meaning in zip(places, meanings, strict=True):
            found[place] = meaning
        return found


async def embed(
    call: TaskCall, connector: Mapping[str, Any], texts: Sequence[str]
) -> list[Meaning]:
    """What some texts mean, one by one.

    Raises:
        RunError: there is no such model, it failed, or it gave what are no vectors.
    """
    embedder = call.ctx.doors.embedder(connector)
    vectors = await embedder.embed(texts)
    call.ctx.count(vectors.usage)
    if len(vectors) != len(texts) or not all(map(_is_vector, vectors)):
        raise ModelFailed(
            f"The embedding model of {call.where} gave {len(vectors)} vectors for {len(texts)} "
            "texts, or some that are none; name another model in its connector."
        )
    return [Meaning(embedder.space, vector) for vector in vectors]


def _is_vector(numbers: Sequence[float]) -> bool:
    return 0 < len(numbers) <= MAX_DIMENSION and all(map(math.isfinite, numbers))


def text_of(item: Any) -> str:
    """The text of an item: `text`, `content` with `title`, `title`, else its JSON."""
    if not isinstance(item, Mapping):
        return _bounded(item)
    title = _bounded(item.get("title"))
    text = _bounded(item.get("text"))
    if text:
        return text
    content = _bounded(item.get("content"))
    if content:
        return f"{title}\n{content}"[:MAX_TEXT] if title else content
    return title or _bounded(item)


def query_text(query: Any) -> str:
    """The text that is searched for: the text itself, or what the user said in a chat."""
    if isinstance(query, Mapping):
        query = [query]
    if not isinstance(query, list | tuple):
        return _bounded(query)
    messages = [item for item in query if isinstance(item, Mapping)]
    users = [message for message in messages if message.get("role") == "user"]
    spoken = [_content(message.get("content")) for message in users or messages]
    spoken += [item.strip() for item in query if isinstance(item, str)]
    return "\n".join(text for text in spoken if text)[-MAX_TEXT:]


def _content(content: Any) -> str:
    """The text of a message, which some clients send in parts."""
    if isinstance(content, list | tuple):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "\n".join(part for part in parts if isinstance(part, str))
    return _bounded(content)


def _bounded(value: Any) -> str:
    """A value as text, not longer than a model reads; null and nothing are empty."""
    if value is None or value in ("", [], {}):
        return ""
    text = str(value) if isinstance(value, str) else compact_json(value)
    return text.strip()[:MAX_TEXT]

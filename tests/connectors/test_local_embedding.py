"""The vectors of the scripted model."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.connectors.llm import ScriptedProvider
from machina.connectors.llm.local_embedding import DIMENSIONS, embed_text

SNIPPETS = (
    "Refunds are paid within fourteen days after we receive the returned goods.",
    "Our office in Lisbon is open from nine to five on weekdays.",
    "Shipping to Norway takes three to five business days and costs 12 euros.",
    "The warranty covers manufacturing defects for two years.",
)


def near(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(embed_text(one), embed_text(other), strict=True))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("When will my refund be paid?", 0),
        ("when is the LISBON office open?", 1),
        ("What does shipping cost to Norway?", 2),
        ("Are defects covered by the warranty?", 3),
    ],
)
def test_the_snippet_that_answers_is_the_nearest(question: str, answer: int) -> None:
    scores = [near(question, snippet) for snippet in SNIPPETS]
    assert scores.index(max(scores)) == answer
    assert max(scores) > 0.2
    assert sorted(scores)[-2] < max(scores) / 2


def test_texts_without_a_word_in_common_are_far_apart() -> None:
    assert abs(near("Tell me a joke about cats", SNIPPETS[1])) < 0.1


def test_scripts_without_blanks_are_compared_by_their_characters() -> None:
    assert near("本社は東京にあります。", "東京の本社はどこですか") > 0.2
    assert near("今日は天気がいい", "東京の本社はどこですか") < 0.1


@given(st.text(max_size=300))
def test_a_vector_has_length_one_whatever_the_text(text: str) -> None:
    vector = embed_text(text)
    assert len(vector) == DIMENSIONS
    assert math.fsum(value * value for value in vector) == pytest.approx(1, abs=1e-3)
    assert embed_text(text) == vector


def test_the_same_text_has_the_same_vector_in_every_version() -> None:
    vector = embed_text("Stable")
    positions = [index for index, value in enumerate(vector) if value]
    assert positions == [4, 133, 245, 250, 348, 368, 375, 417, 540, 548, 584, 603]
    assert vector[133] == -0.890745
    assert {abs(vector[index]) for index in positions} == {0.137038, 0.890745}


async def test_the_scripted_model_embeds_any_number_of_texts_of_any_length() -> None:
    provider = ScriptedProvider()
    long = "word " * 100_000
    started = time.monotonic()
    answer = await provider.embed(["one two", "", long], "text-embedding-004")
    assert time.monotonic() - started < 5
    assert list(answer) == [embed_text("one two"), embed_text(""), embed_text(long)]
    assert answer.model == "scripted"
    assert answer.usage.prompt_tokens == 2 + 100_000
    assert await provider.embed([]) == []

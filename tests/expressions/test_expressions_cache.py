"""Compiled texts are kept as long as they are used and there is room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from machina.expressions import Scope, compile_expression
from machina.expressions.cache import SourceCache


def test_expression_is_compiled_once_when_its_text_is_used_again() -> None:
    assert compile_expression("$.get('cached')") is compile_expression("$.get('cached')")


def test_text_used_longest_ago_goes_first_when_there_is_no_room() -> None:
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text

    cache = SourceCache(make, max_characters=32 * 100)
    texts = [f"{number:84d}" for number in range(32)]
    for text in texts:
        cache(text)
    cache(texts[0])
    cache("x" * 84)
    assert len(cache) == 32
    made.clear()
    for text in (texts[0], texts[2]):
        cache(text)
    assert made == []
    cache(texts[1])
    assert made == [texts[1]]


def test_text_is_not_kept_when_it_is_too_long() -> None:
    cache = SourceCache(len, max_characters=320)
    assert cache("x" * 11) == 11
    assert len(cache) == 0
    assert cache("x" * 10) == 10
    assert len(cache) == 1


def test_room_is_bounded_when_texts_are_short() -> None:
    cache = SourceCache(str, max_characters=1_600)
    for number in range(1_000):
        cache(str(number))
    assert len(cache) <= 100


def test_expression_can_be_evaluated_in_many_threads_at_once() -> None:
    source = "[sorted([x, i], key=lambda k: -k)[0] for x in $.get('xs') for i in range(3)]"

    def evaluated(n: int) -> bool:
        value = compile_expression(source).evaluate(Scope({"xs": [n, n + 1]}, {}))
        return bool(value == [max(x, i) for x in (n, n + 1) for i in range(3)])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(evaluated, range(200)))

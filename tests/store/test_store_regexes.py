"""The linear-time search agrees with `re`, and never takes long."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.store import regexes
from machina.store.base import QueryRefused
from machina.store.regexes import compile_search
from tests.store.strategies import unhurried

ATOMS = (
    "a", "b", "c", "A", ".", r"\n", "[ab]", "[^a]", r"\w", r"\W", r"\s", r"\d", "é",
    "^", "$", r"\A", r"\Z", r"\b", r"\B",
)  # fmt: skip
patterns = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(("*", "+", "?", "*?", "{2}", "{1,3}", "{2,}"))).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda body: f"(?i:{body})"),
    ),
    max_leaves=8,
)
subjects = st.text(alphabet="abcAé\n _1", max_size=8)


@unhurried
@given(patterns, st.sampled_from(("", "i", "m", "s", "im", "ims")), subjects)
def test_the_automaton_agrees_with_re(pattern: str, options: str, subject: str) -> None:
    flags = sum({"i": re.I, "m": re.M, "s": re.S}[option] for option in options)
    expected = re.search(pattern, subject, flags) is not None
    assert compile_search(pattern, options)(subject) is expected
    # A repetition keeps a pattern away from `re`, so that simple ones take the automaton too.
    assert compile_search(f"(?:{pattern})(?:){{0,1}}", options)(subject) is expected


def test_one_search_can_be_used_for_many_texts() -> None:
    search = compile_search("(?:ab)+c$")
    assert [search(text) for text in ("ababc", "abab", "c", "xabc\n", "")] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_long_texts_are_searched_to_the_end_by_simple_patterns() -> None:
    search = compile_search("needle")
    assert search("x" * 200_000 + "needle")
    assert not search("x" * 200_000)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(a|a)*$", "(.*)*x", "a*a*a*a*a*b", "(a|aa)+$", ".*.*.*=x", "(a?){30}a{30}"],
)
def test_patterns_that_ruin_a_backtracker_take_linear_time(pattern: str) -> None:
    search = compile_search(pattern)
    began = time.process_time()
    search("a" * 100_000 + "!")
    assert time.process_time() - began < 2


def test_a_text_that_costs_too_many_steps_is_refused() -> None:
    generator = random.Random(7)
    text = "".join(generator.choice("ab") for _ in range(20_000))
    with pytest.raises(QueryRefused, match="too many steps"):
        compile_search("(a|b)*a(a|b){200}$")(text + "!")


def test_memory_of_states_is_given_up_between_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regexes, "MAX_REMEMBERED", 3)
    search = compile_search("(?:a|b)*c[ab]{6}d")
    assert search("ababcabababd")
    assert not search("abcabababa")
    assert search("ccccabababd")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", "back-references"),
        ("(?=a)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(a)?(?(1)b|c)", "conditions"),
        ("a++", "possessive"),
        ("(?>a)", "atomic"),
        ("(?a)x", r"\?a"),
        ("(a{100}){100}", "repeats too much"),
        ("a{4000000000}", "repeats too much"),
        ("[", "Not a regular expression"),
        ("a{2,1}", "Not a regular expression"),
        ("a{99999999999999999999}", "Not a regular expression"),
        ("x" * 257, "at most 256"),
    ],
)
def test_what_an_automaton_cannot_do_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(QueryRefused, match=said):
        compile_search(pattern)

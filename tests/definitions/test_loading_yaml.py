"""YAML as authors write it, and as attackers do: what is built, and what is refused where."""

from __future__ import annotations

from typing import Any

import pytest

from machina.definitions.loading import (
    MAX_ALIASES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    YamlInvalid,
    load_documents,
)


def load(text: str) -> Any:
    (document,) = load_documents(text.encode())
    return document


def refusal(text: str | bytes) -> str:
    with pytest.raises(YamlInvalid) as refused:
        load_documents(text if isinstance(text, bytes) else text.encode())
    return refused.value.message


def test_duplicate_groups_are_merged_field_by_field_and_the_later_wins() -> None:
    assert load(
        """
        context-variables:
          google-genai: {credential: a, project_id: b, nested: {x: 1, y: 2}}
          debugger: {enabled: true}
          google-genai: {api_key: c, project_id: d, nested: {y: 3}}
        """
    )["context-variables"] == {
        "google-genai": {
            "credential": "a",
            "project_id": "d",
            "nested": {"x": 1, "y": 3},
            "api_key": "c",
        },
        "debugger": {"enabled": True},
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: 1, a: 2}", 2),
        ("{a: [1], a: [2]}", [2]),
        ("{a: {b: 1}, a: text}", "text"),
        ("{a: text, a: {b: 1}}", {"b": 1}),
        ("{a: {b: 1}, a: }", {"b": 1}),
        ("{a: 1, a: }", None),
    ],
)
def test_of_other_duplicate_values_the_later_counts(text: str, value: Any) -> None:
    assert load(text) == {"a": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("no", False),
        ("On", True),
        ("~", None),
        ("", None),
        ('""', ""),
        ('"no"', "no"),
        ("'7'", "7"),
        ("7", 7),
        ("1_000", 1000),
        ("0x1F", 31),
        ("017", 15),
        ("08", "08"),
        ("1.0.0", "1.0.0"),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        (".nan", ".nan"),
        ("-.inf", "-.inf"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ("0b_", "0b_"),
        ("=", "="),
        ("$.get('a')", "$.get('a')"),
        ("!!str 7", "7"),
        ("! 7", "7"),
        ('!!int "7"', 7),
        ("!!float 1.5", 1.5),
        ("!!bool yes", True),
        ("!!null x", None),
        ("!!timestamp 2026-01-31", "2026-01-31"),
        ("!!binary aGk=", "aGk="),
        ("!!seq [a]", ["a"]),
        ("!!map {a: b}", {"a": "b"}),
        ("!!set {a, b}", {"a": None, "b": None}),
        ("!!omap [{a: 1}]", [{"a": 1}]),
    ],
)
def test_a_scalar_means_what_yaml_1_1_says_as_far_as_json_can_hold_it(
    text: str, value: Any
) -> None:
    assert load(f"key: {text}\n") == {"key": value}


def test_long_digits_stay_text_and_cost_nothing() -> None:
    digits = "9" * 1_000_000
    assert load(f"[{digits}, 1.{digits[:200]}]") == [digits, f"1.{digits[:200]}"]


def test_keys_are_the_text_that_was_written() -> None:
    loaded = load("{no: a, 1: b, 2026-01-31: c, ~: d, $ref: e, 'a.b': f}")
    assert loaded == {"no": "a", "1": "b", "2026-01-31": "c", "~": "d", "$ref": "e", "a.b": "f"}


def test_block_texts_keep_their_lines() -> None:
    assert load("a: |\n  x\n  y\nb: >\n  x\n  y\n") == {"a": "x\ny\n", "b": "x y\n"}


def test_merge_keys_yield_to_what_is_written_and_earlier_merges_win() -> None:
    text = "{base: &b {x: 1, y: 1}, more: &m {y: 2, z: 2}, own: {x: 0, <<: [*b, *m]}, q: {'<<': 1}}"
    loaded = load(text)
    assert loaded["own"] == {"x": 0, "y": 1, "z": 2}
    assert loaded["q"] == {"<<": 1}
    assert load("{a: &a {x: 1}, b: {<<: *a}}")["b"] == {"x": 1}


def test_aliases_are_copies_so_that_nothing_is_shared() -> None:
    loaded = load("a: &a {list: [1]}\nb: *a\nb: {list: [2], more: 1}\n&k c: *a\n*k : 3\n")
    assert loaded == {"a": {"list": [1]}, "b": {"list": [2], "more": 1}, "c": 3}


def test_empty_files_have_no_documents_and_several_are_all_read() -> None:
    for text in (b"", b"# nothing\n", b"---\n", b"\xef\xbb\xbf", b"---\n...\n---\n"):
        assert load_documents(text) == []
    assert load_documents(b"---\na: 1\n---\n---\n&x b: 2\n") == [{"a": 1}, {"b": 2}]
    assert load_documents(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n") == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system ['id']", "tag 'tag:yaml.org,2002:python/object"),
        ("a: !!python/name:os.system x", "not allowed"),
        ("a: !custom {b: 1}", "'!custom' is not allowed"),
        ("a: !!int {b: 1}", "not allowed"),
        ("a: !!str [b]", "not allowed"),
        ("a: !!int text", "'text' is no value of the tag"),
        ("a: !!bool maybe", "no value of the tag"),
        ("a: &a [*a]", "stands for nothing that is complete"),
        ("a: *nobody", "stands for nothing"),
        ("a: &x 1\n---\nb: *x", "stands for nothing"),
        ("text: {{ name }}", "put quotes around"),
        ("? [a]\n: b", "a key must be text"),
        ("a: &a [1]\n? *a\n: b", "a key must be text"),
        ("a: {<<: 1}", "'<<' merges mappings"),
        ("a: {<<: [1]}", "'<<' merges mappings"),
        ("a:\n\t- b", "line 2, column 1: found character"),
        ("a: 'x", "line 1"),
        ("a: \x07", "control characters|special characters|not YAML"),
        ("a: \x00b", "NUL"),
        (b"a: caf\xe9", "byte 6 is not UTF-8"),
        (b"\xff\xfea\x00", "not UTF-8"),
        ("[" * 500, f"deeper than {MAX_DEPTH} levels"),
        ("[" * 10_000, f"deeper than {MAX_DEPTH} levels|exceeded maximum nesting depth"),
        ("a" * (MAX_BYTES + 1), "larger than"),
        ("\n".join(f"k{n}: v" for n in range(MAX_NODES)), "more than 100000 keys and values"),
        (f"[&a x{', *a' * (MAX_ALIASES + 1)}]", f"more than {MAX_ALIASES} aliases"),
    ],
)
def test_what_is_no_safe_yaml_is_refused_with_its_place(text: str | bytes, said: str) -> None:
    message = refusal(text)
    assert any(part in message for part in said.split("|")), message


def test_a_billion_laughs_are_refused_before_they_are_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "more than 100000 keys and values" in refusal("\n".join(lines))


def test_aliases_count_as_deep_as_what_they_stand_for() -> None:
    deep = "[" * 40 + "]" * 40
    text = f"a: &a {deep}\nb: {'[' * 30}*a{']' * 30}\n"
    assert f"deeper than {MAX_DEPTH} levels" in refusal(text)
    assert load(f"a: &a {{m: {deep}}}\nb: *a\n")["b"] == {"m": load(deep)}

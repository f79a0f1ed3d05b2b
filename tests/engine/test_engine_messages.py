from __future__ import annotations

import time
from typing import Any

import pytest

from machina.definitions import Prompt
from machina.engine.tasks.messages import build_messages, fill

USER = {"role": "user", "content": "Hi", "timestamp": "2026-01-01T00:00:00Z"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url"}]}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def build(inputs: dict[str, Any], **prompt: Any) -> list[Any]:
    return list(build_messages(Prompt.read({"name": "p", **prompt}), inputs))


def test_the_history_is_passed_on_as_the_very_same_messages_and_nothing_else() -> None:
    history = [USER, CALL, PARTS]
    built = build({"messages": history})
    assert built == history
    assert all(ours is theirs for ours, theirs in zip(built, history, strict=True))


def test_instruction_and_inputs_come_before_the_history() -> None:
    assert build({"messages": [USER], "topic": "tea"}, instruction="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "topic:\ntea"},
        USER,
    ]


def test_a_history_that_is_one_text_is_one_message() -> None:
    assert build({"messages": "Hi"}) == [{"role": "user", "content": "Hi"}]


def test_a_history_that_is_one_message_is_a_history() -> None:
    assert build({"messages": USER}) == [USER]


@pytest.mark.parametrize("empty", [[], "", None])
def test_an_empty_history_adds_nothing(empty: Any) -> None:
    assert build({"messages": empty, "a": "b"}) == [{"role": "user", "content": "a:\nb"}]
    assert build({"messages": empty}) == []


def test_messages_of_another_shape_are_an_ordinary_input() -> None:
    assert build({"messages": ["Hi", "Ho"]}) == [
        {"role": "user", "content": 'messages:\n["Hi","Ho"]'}
    ]


def test_inputs_are_sent_by_number_and_then_in_the_order_of_the_file() -> None:
    inputs = {"z": "1", "_10-b": "2", "_2-a": "3", "a": "4"}
    assert build(inputs)[0]["content"] == "_2-a:\n3\n\n_10-b:\n2\n\nz:\n1\n\na:\n4"


def test_null_inputs_and_model_parameters_are_not_sent() -> None:
    inputs = {"a": None, "timeout": 30, "temperature": 0, "max_tokens": 5, "b": 0, "c": ""}
    assert build(inputs)[0]["content"] == "b:\n0\n\nc:\n"


def test_containers_are_sent_as_compact_json() -> None:
    assert build({"d": {"a": [1, "ã"]}})[0]["content"] == 'd:\n{"a":[1,"ã"]}'


def test_an_instruction_alone_is_said_by_the_user() -> None:
    assert build({}, instruction="Tell a story.") == [{"role": "user", "content": "Tell a story."}]


def test_an_instruction_may_be_messages_or_a_list_of_texts() -> None:
    told = [{"role": "system", "content": "About {topic}."}, {"role": "user", "content": ["x"]}]
    assert build({"topic": "tea"}, messages=told) == [
        {"role": "system", "content": "About tea."},
        {"role": "user", "content": ["x"]},
        {"role": "user", "content": "topic:\ntea"},
    ]
    assert build({"topic": "tea"}, messages=told[0])[0]["content"] == "About tea."
    assert build({"a": 1}, instruction=["One.", "Two."])[0]["content"] == "One.\nTwo."


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{city}} {{ city }} {city}", "Rome Rome Rome"),
        ("{ city } {town} {{town}}", "{ city } {town} {{town}}"),
        ('{"city": "{city}", "n": {n}}', '{"city": "Rome", "n": [1,2]}'),
        ('{{"city": 1}}', '{{"city": 1}}'),
        ("{_1-topic} {{ _1-topic }}", "tea tea"),
        ("[{none}]", "[]"),
        ("{}{{}}", "{}{{}}"),
        ("{loop}", "{city}"),
    ],
)
def test_only_names_of_inputs_are_put_in_place(text: str, filled: str) -> None:
    inputs = {"city": "Rome", "n": [1, 2], "_1-topic": "tea", "none": None, "loop": "{city}"}
    assert fill(text, inputs) == filled


def test_inputs_are_sent_although_they_are_in_the_instruction_too() -> None:
    assert build({"city": "Rome"}, instruction="About {city}.") == [
        {"role": "system", "content": "About Rome."},
        {"role": "user", "content": "city:\nRome"},
    ]


def test_the_texts_of_the_schema_are_the_instruction_when_there_is_no_other() -> None:
    schema = {
        "type": "object",
        "title": "Match report",
        "description": "Summarise the match.",
        "properties": {
            "headline": {"type": "string", "description": "Short."},
            "goals": {
                "type": "array",
                "items": {"properties": {"minute": {"description": "When."}}},
            },
        },
    }
    told = build({"match": "A-B"}, schema=schema)
    assert told[0] == {
        "role": "system",
        "content": "Match report\nSummarise the match.\nAnswer with one JSON object:\n"
        "- headline: Short.\n- goals\n- goals[].minute: When.",
    }
    assert build({"a": 1}, schema=schema, instruction="Mine.")[0]["content"] == "Mine."


def test_inputs_are_all_there_is_when_the_prompt_is_not_defined() -> None:
    assert build_messages(None, {"q": "?"}) == [{"role": "user", "content": "q:\n?"}]


@pytest.mark.parametrize(
    "key", ["instruction", "instructions", "template", "prompt", "text", "messages"]
)
def test_an_instruction_has_six_names(key: str) -> None:
    assert build({"a": 1}, **{key: "Be brief."})[0] == {"role": "system", "content": "Be brief."}


def test_an_empty_instruction_leaves_the_word_to_its_synonym() -> None:
    assert build({"a": 1}, instruction="", text="Mine.")[0]["content"] == "Mine."


def test_a_history_keeps_typed_parts_and_extra_keys() -> None:
    thread = [
        {**USER, "objects": [], "suggestions": ["x"]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "document_content": []},
    ]
    assert build({"messages": thread}) == thread


def test_a_text_one_level_deeper_in_a_history_is_taken_out() -> None:
    deeper = {"role": "user", "content": {"content": "Hi"}, "timestamp": 1}
    assert build({"messages": [deeper]}) == [{"role": "user", "content": "Hi", "timestamp": 1}]


def test_filling_takes_no_longer_than_the_text_when_it_is_hostile() -> None:
    started = time.monotonic()
    for text in ("{{" + " " * 200_000, "{{ a" * 50_000, "{" * 200_000, "{a" * 100_000):
        assert fill(text, {"a": "x"}) == text
    assert time.monotonic() - started < 5


def test_a_name_is_put_in_place_only_once() -> None:
    assert fill("{{a}} {{{a}}}", {"a": "{b}", "b": "no"}) == "{b} {{b}}"

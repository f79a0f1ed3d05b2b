"""Embedding what is written, and searching by what documents mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from machina.connectors.llm.base import Embeddings, Usage
from machina.engine.tasks.documents.embedding import query_text, text_of
from machina.errors import ModelFailed
from tests.builders import World
from tests.engine.documenting import Desk, document


class Teacher:
    """An embedder that knows a few words, each a direction, and keeps what it was asked."""

    space = "teacher"
    words = ("tea", "coffee", "rain")

    def __init__(self, *, fails: int = 0) -> None:
        self.asked: list[list[str]] = []
        self.connectors: list[Mapping[str, Any]] = []
        self.fails = fails
        self.answer: Any = None

    async def embed(
        self, texts: Sequence[str], *, timeout_seconds: float | None = None
    ) -> Embeddings:
        self.asked.append([*texts])
        if self.fails:
            self.fails -= 1
            raise ModelFailed("The model is away.")
        if self.answer is not None:
            return Embeddings(self.answer)
        vectors = [[float(text.lower().count(word)) for word in self.words] for text in texts]
        return Embeddings(vectors, usage=Usage(len(texts), 0))


@pytest.fixture
def teacher(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    teacher = Teacher()

    def embedder(_: World, connector: Mapping[str, Any]) -> Teacher:
        teacher.connectors.append(connector)
        return teacher

    monkeypatch.setattr(World, "embedder", embedder)
    return teacher


async def learn(desk: Desk, *texts: str, **fields: Any) -> None:
    task = document(
        "bulk-save",
        document_name="fact",
        documents={"items": "[{'text': t} for t in $.get('texts')]"},
        config={"embed-vector": True},
        **fields,
    )
    await desk.do(task, texts=list(texts))


def recall(query: Any = "'tea'", config: Any = None, **fields: Any) -> dict[str, Any]:
    inputs = {"search-query": query, **fields.pop("inputs", {})}
    more = {"search-vector": True, "search-limit": 100, **(config or {})}
    return document("search", config=more, inputs=inputs, **fields)


async def texts(desk: Desk, task: Any, **payload: Any) -> list[str]:
    return [row["value"]["text"] for row in await desk.do(task, **payload)]


# Writing


@pytest.mark.parametrize("action", ["save", "update", "bulk-save", "bulk-update"])
async def test_what_is_written_is_embedded_when_asked(
    desk: Desk, teacher: Teacher, action: str
) -> None:
    fields: dict[str, Any] = {"documents": {"fact": "{'text': 'Tea time'}"}}
    if action.startswith("bulk"):
        fields = {"documents": {"items": "[{'text': 'Tea time'}]"}, "document_name": "fact"}
    task = document(action, config={"embed-vector": True}, **fields)
    [found] = await desk.do(task)
    assert "embedding" not in found
    assert teacher.asked == [["Tea time"]]
    assert await texts(desk, recall()) == ["Tea time"]


@pytest.mark.parametrize("switch", [False, "false", "'False'", "$.get('absent')", None, 0])
async def test_a_connector_means_nothing_when_nothing_is_embedded(
    desk: Desk, teacher: Teacher, switch: Any
) -> None:
    task = document(
        "save",
        config={"embed-vector": switch},
        documents={"fact": "{'text': 'tea'}"},
        connector={"name": "none", "command": "len(None)"},
    )
    await desk.do(task)
    assert teacher.asked == []


async def test_the_connector_is_evaluated_and_may_stand_in_the_config(
    desk: Desk, teacher: Teacher
) -> None:
    block = {"name": "acme", "command": "invoke_embedding", "model": "$.get('m')"}
    for fields in (
        {"connector": block},
        {"config": {"connector": block}},
        {"config": {"connector": "acme"}, "connector": {"model": "$.get('m')"}},
        {},
    ):
        config = {"embed-vector": "true", **fields.get("config", {})}
        task = document("save", documents={"f": "{'text': 'x'}"}, config=config,
                        connector=fields.get("connector", {}))  # fmt: skip
        await desk.do(task, m="m1")
    assert [c.get("model") for c in teacher.connectors] == ["m1", "m1", "m1", None]
    assert [c.get("name") for c in teacher.connectors] == ["acme", "acme", "acme", None]


async def test_the_selector_sees_the_item_and_the_state(desk: Desk, teacher: Teacher) -> None:
    config = {"embed-vector": True, "embed-selector": "$.get('title')"}
    items = "[{'title': 'A', 'text': 'x'}, {'title': None, 'text': 'y'}, {'text': 'z'}]"
    task = document("bulk-save", config=config, document_name="f", documents={"items": items})
    await desk.do(task)
    config["embed-selector"] = "f\"{$.get('title')} {context.get('who')}\""
    await desk.do(document("save", config=config, documents={"f": "{'title': 'B'}"}), who="me")
    config["embed-selector"] = "$.get('title') + 1"
    await desk.do(document("save", config=config, documents={"f": "{'title': 'C'}"}))
    config["embed-selector"] = "$.get('tags')"
    await desk.do(document("save", config=config, documents={"f": "{'tags': ['a', 'b']}"}))
    assert teacher.asked == [["A", "y", "z"], ["B me"], ["C"], ['["a","b"]']]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"text": " t ", "content": "c", "title": "T"}, "t"),
        ({"text": "", "content": "c", "title": "T"}, "T\nc"),
        ({"content": "c"}, "c"),
        ({"content": None, "title": "T", "more": 1}, "T"),
        ({"more": 1}, '{"more":1}'),
        ({"text": {"de": "Tee"}}, '{"de":"Tee"}'),
        ("plain", "plain"),
        (["a", 1], '["a",1]'),
        (None, ""),
        ({}, ""),
        ({"content": "c" * 40_000, "title": "T"}, "T\n" + "c" * 29_998),
    ],
)
def test_the_text_of_an_item_without_a_selector(item: Any, text: str) -> None:
    assert text_of(item) == text


async def test_texts_go_to_the_model_in_batches_and_are_counted(
    desk: Desk, teacher: Teacher
) -> None:
    await learn(desk, *(["tea"] * 250))
    assert [len(asked) for asked in teacher.asked] == [100, 100, 50]


async def test_nothing_is_not_embedded(desk: Desk, teacher: Teacher) -> None:
    await desk.do(document("save", config={"embed-vector": True}, documents={"f": "{}"}))
    assert teacher.asked == []


@pytest.mark.parametrize("answer", [[[1.0]], [[1.0], []], [[1.0], [float("nan")]], None])
async def test_a_failure_of_the_model_loses_no_document(
    desk: Desk, teacher: Teacher, answer: Any
) -> None:
    teacher.answer, teacher.fails = answer, 0 if answer else 1
    await learn(desk, "tea", "coffee")
    assert len(await desk.stored("fact")) == 2
    teacher.answer = None
    assert await desk.do(recall()) == []


async def test_a_failed_embedding_takes_away_one_that_does_not_fit_any_more(
    desk: Desk, teacher: Teacher
) -> None:
    for count in (1, 12):
        name = f"fact-{count}"
        task = document(
            "bulk-update",
            document_name=name,
            documents={"items": "[{'text': $.get('t'), 'id': n} for n in range($.get('n'))]"},
            config={"embed-vector": "$.get('embeds')"},
        )

        async def matches(words: str, name: str = name) -> int:
            filters = {"name": f"'{name}'"}
            return len(await desk.do(recall(words, {"threshold-docs": 50}, filters=filters)))

        await desk.do(task, t="tea", n=count, embeds=True)
        await desk.do(task, t="rain", n=count, embeds=False)
        assert await matches("'tea'") == count  # a change that does not embed keeps the vector
        await desk.do(task, t="coffee", n=count, embeds=True)
        assert (await matches("'tea'"), await matches("'coffee'")) == (0, count)
        teacher.fails = 1
        await desk.do(task, t="tea", n=count, embeds=True)
        assert (await matches("'tea'"), await matches("'coffee'")) == (0, 0)


# Searching


async def test_the_best_come_first_with_their_score(desk: Desk, teacher: Teacher) -> None:
    await learn(desk, "coffee", "tea and coffee", "tea", "rain", "tea tea coffee")
    found = await desk.do(recall(), x=1)
    assert [row["value"]["text"] for row in found] == ["tea", "tea tea coffee", "tea and coffee"]
    assert [round(row["similarity_score"], 3) for row in found] == [1.0, 0.894, 0.707]
    assert all("embedding" not in row for row in found)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({}, 5),
        ({"threshold-docs": 2}, 2),
        ({"threshold-docs": "'3'"}, 3),
        ({"threshold-docs": 100}, 7),
        ({"threshold-docs": "$.get('two')"}, 2),
        ({"threshold-similarity": 0.9, "threshold-docs": 100}, 4),
        ({"threshold-similarity": "0.71", "threshold-docs": 100}, 4),
        ({"threshold-similarity": 0, "threshold-docs": 100}, 8),
        ({"search-limit": 3}, 2),
        ({"search-limit": 3, "search-sorters": ["_id", 1]}, 3),
    ],
)
async def test_thresholds_and_the_pool_bound_what_is_found(
    desk: Desk, teacher: Teacher, config: Any, count: int
) -> None:
    await learn(desk, *(["tea"] * 4), *(["tea and coffee"] * 3), "rain")
    assert len(await desk.do(recall(config=config), two=2)) == count


@pytest.mark.parametrize("name", ["threshold-similarity", "threshold-docs", "search-limit"])
async def test_a_threshold_that_is_no_number_fails_the_task(
    desk: Desk, teacher: Teacher, name: str
) -> None:
    assert f"'{name}' of task 'work'" in await desk.fail(recall(config={name: "much"}))


async def test_only_documents_that_match_the_filters_are_compared(
    desk: Desk, teacher: Teacher
) -> None:
    await learn(desk, "tea one")
    await learn(desk, "tea two", metadata={"lang": "'en'"})
    task = recall(filters={"metadata.lang": "'en'"})
    assert await texts(desk, task) == ["tea two"]
    assert await texts(desk, recall(inputs={"name": "'other'"})) == []
    assert await texts(desk, recall(filters={"value.text": {"$regex": "'one$'"}})) == ["tea one"]


async def test_documents_without_a_vector_of_the_same_kind_never_match(
    desk: Desk, teacher: Teacher
) -> None:
    await learn(desk, "tea")
    await desk.put("fact", {"text": "tea, not embedded"})
    teacher.space = "another"
    await learn(desk, "tea elsewhere")
    assert await texts(desk, recall(config={"threshold-similarity": -1})) == ["tea elsewhere"]
    teacher.space = "teacher"
    teacher.answer = [[1.0, 0.0]]
    await learn(desk, "tea of two dimensions")
    teacher.answer = None
    assert await texts(desk, recall(config={"threshold-similarity": -1})) == ["tea"]


async def test_the_documents_of_another_project_are_never_compared(
    desk: Desk, teacher: Teacher
) -> None:
    await learn(desk, "tea")
    stranger = Desk(desk.store)
    stranger.run.project = "other"
    assert await stranger.do(recall()) == []


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("'tea'", "tea"),
        ("$.get('messages')", "tea please\nmore\nand tea"),
        ("$.get('messages')[1]", "What tea?"),
        ("[{'role': 'assistant', 'content': 'tea'}]", "tea"),
        ("['tea', 'rain']", "tea\nrain"),
        ("7", "7"),
    ],
)
async def test_the_query_is_text_or_what_the_user_said(
    desk: Desk, teacher: Teacher, query: str, asked: str
) -> None:
    messages = [
        {"role": "user", "content": "tea please"},
        {"role": "assistant", "content": "What tea?"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "more"}, {"type": "image"}, "and tea"],
        },
        {"role": "user", "content": None},
    ]
    await desk.do(recall(query), messages=messages)
    assert teacher.asked == [[asked]]


@pytest.mark.parametrize("query", ["None", "''", "'  '", "[]", "[{'role': 'user'}]"])
async def test_nothing_is_like_nothing(desk: Desk, teacher: Teacher, query: str) -> None:
    await learn(desk, "tea")
    teacher.asked.clear()
    assert await desk.do(recall(query)) == []
    assert teacher.asked == []


def test_a_long_chat_is_cut_at_its_beginning() -> None:
    chat = [{"role": "user", "content": letter * 20_000} for letter in "ab"]
    assert query_text(chat) == "a" * 9_999 + "\n" + "b" * 20_000
    assert len(query_text(["a" * 20_000] * 3)) == 30_000


@pytest.mark.parametrize("switch", ["$.get('on')", "true", True, "'true'", 1])
async def test_a_computed_switch_turns_it_on(desk: Desk, teacher: Teacher, switch: Any) -> None:
    await learn(desk, "tea", "coffee")
    found = await desk.do(recall(config={"search-vector": switch}), on=True)
    assert [row["value"]["text"] for row in found] == ["tea"]


@pytest.mark.parametrize("switch", ["$.get('on')", "false", False, "'false'", None])
async def test_the_connector_is_ignored_when_it_is_off(
    desk: Desk, teacher: Teacher, switch: Any
) -> None:
    await learn(desk, "tea", "coffee")
    teacher.asked.clear()
    task = recall(config={"search-vector": switch}, connector={"name": "len(None)"})
    found = await desk.do(task, on=False)
    assert [row["value"]["text"] for row in found] == ["coffee", "tea"]
    assert "similarity_score" not in found[0]
    assert teacher.asked == []


async def test_a_query_that_cannot_be_embedded_fails_the_task(desk: Desk, teacher: Teacher) -> None:
    teacher.fails = 1
    assert await desk.fail(recall()) == "model_error: The model is away."
    teacher.answer = []
    assert "gave 0 vectors for 1 texts" in await desk.fail(recall())


async def test_a_large_pool_is_looked_through_in_pages(desk: Desk, teacher: Teacher) -> None:
    await learn(desk, "tea first", *(["rain"] * 1_100), "tea last")
    for config in (
        {"search-limit": 10_000},
        {"search-limit": 2_000, "search-sorters": ["name", 1]},
    ):
        assert sorted(await texts(desk, recall(config=config))) == ["tea first", "tea last"]
    assert await texts(desk, recall(config={"search-limit": 1_101})) == ["tea last"]


async def test_the_scripted_embedder_finds_its_own_words(desk: Desk) -> None:
    await learn(desk, "Green tea comes from China.", "Rain falls mainly in the plain.")
    found = await desk.do(recall("'where does green tea come from'", {"threshold-docs": 1}))
    assert found[0]["value"]["text"].startswith("Green tea")

"""Whole templates in the style of the corpus: installed by the installer, run by the worker."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from machina.observability.redaction import MASK
from machina.runs.run import Run
from machina.store.definitions import Kind
from machina.templates import TemplateReport, Templates
from tests.conformance.expectations import assert_has, assert_items, assert_same
from tests.conformance.runner import SERVER, Deployment
from tests.egress.server import ok
from tests.fleet import ask, assert_sound, get_run, shown_text, types_of, watch
from tests.templates.packing import zipped_folder

HERE: Final = Path(__file__).parent / "bundles"
_NUMBERS: Final = count(1)


@dataclass
class Ended:
    """A run that is over, as its record and its viewers have it."""

    run: Run
    events: list[dict[str, Any]]

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.events[-1]["metadata"]["state"]
        return state

    @property
    def steps(self) -> list[tuple[str, str]]:
        return [(step["name"], step["status"]) for step in self.run.steps]


class Desk:
    """One project, with what a person does there: install templates, run them, read documents."""

    def __init__(self, deployment: Deployment, repository: Path, how: str) -> None:
        self.project = f"bundle-{next(_NUMBERS)}"
        self.server = deployment.server
        self._deployment = deployment
        self._repository = repository
        self._how = how

    async def install(self, template: str) -> TemplateReport:
        """Installs a template of the repository, from its folder or from an archive of it all."""
        templates = Templates(self._deployment.api.store, self._deployment.api.settings)
        if self._how == "folder":
            (report,) = await templates.install_folder(self.project, self._repository, template)
            return report
        archive = self._repository.with_suffix(".zip")
        content = await asyncio.to_thread(zipped_folder, self._repository)
        await asyncio.to_thread(archive.write_bytes, content)
        with archive.open("rb") as file:
            (report,) = await templates.install_archive(self.project, file, archive.name, template)
        return report

    async def secret(self, name: str, value: str) -> None:
        await self._deployment.api.store.secrets.put(self.project, name, value)

    async def run(self, kind: str, name: str, payload: Mapping[str, Any], **more: Any) -> Ended:
        """Runs an agent, a workflow or a skill as the worker does, and watches it."""
        api = self._deployment.api
        request = ask(
            "", project=self.project, kind=kind, target_name=name, inputs=dict(payload), **more
        )
        run, _ = await api.runs.submit(request)
        await self._deployment.worker.execute(run.id)
        events = await watch(api, run)
        assert_sound(events)
        return Ended(await get_run(api, run), events)

    async def definition(self, kind: Kind, name: str) -> dict[str, Any]:
        """A definition as it was installed."""
        found = await self._deployment.api.store.definitions.get(self.project, kind, name)
        assert found is not None
        return found

    async def documents(self, name: str) -> list[dict[str, Any]]:
        """The documents of a name, oldest first."""
        store = self._deployment.api.store
        return await store.documents.find(
            self.project, {"name": name}, sort=(("_id", 1),), limit=100
        )


@pytest.fixture(params=["folder", "zip"])
def desk(request: pytest.FixtureRequest, deployment: Deployment, tmp_path: Path) -> Desk:
    """A project of its own, and the repository of templates with the address of the server."""
    repository = tmp_path / "templates"
    shutil.copytree(HERE, repository)
    for path in repository.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(SERVER, deployment.server.url("")), encoding="utf-8")
    deployment.server.seen.clear()
    return Desk(deployment, repository, request.param)


def failed_paths(report: TemplateReport) -> list[str]:
    """The entries of a manifest that could not be installed."""
    return [entry.path for entry in report.entries if not all(r["status"] for r in entry.results)]


def whole(report: TemplateReport) -> None:
    assert failed_paths(report) == [], report.entries


pytestmark = pytest.mark.asyncio(loop_scope="module")

GAMES: Final = [
    {
        "id": "g1",
        "home": {"name": "Lions"},
        "away": {"name": "Bears"},
        "scheduled": "2024-05-02T10:00",
    },
    {
        "id": "g2",
        "home": {"name": "Hawks"},
        "away": {"name": "Owls"},
        "scheduled": "2024-05-01T10:00",
    },
]


async def test_a_sports_sync_stores_new_games_once_and_works_on_each_under_a_lock(
    desk: Desk, answer_with: Callable[[Any], None]
) -> None:
    whole(await desk.install("agent-templates/sports-sync"))
    await desk.secret("TEMP_CONTEXT_VARIABLE_LEAGUE_KEY", "canary-league")
    answer_with({"games": GAMES})

    synced = await desk.run("agent", "sports-sync", {})
    again = await desk.run("agent", "sports-sync", {"season": "sr:season:2024"})

    assert synced.run.status == again.run.status == "executed"
    assert synced.state["game_ids"] == ["g1", "g2"]
    assert (synced.state["workflow-status"], again.state["workflow-status"]) == (
        "executed",
        "skipped",
    )
    assert [seen.target.partition("?")[0] for seen in desk.server.seen] == [
        "/league/v4/seasons/sr:season:2024/games.json"
    ] * 2
    assert desk.server.last.headers["x-api-key"] == "canary-league"
    assert ("start", "0") in desk.server.last.query
    assert "canary-league" not in f"{synced} {again}"
    games = await desk.documents("sport:Event")
    assert_items(
        games,
        [
            {
                "title": "Lions x Bears",
                "metadata": {"provider": "league-api", "game_id": "g1", "season": "sr:season:2024"},
            },
            {
                "title": "Hawks x Owls",
                "value": {
                    "@id": "urn:game:g2",
                    "sport:competitors": [
                        {"name": "Hawks", "qualifier": "home"},
                        {"name": "Owls", "qualifier": "away"},
                    ],
                },
            },
        ],
        "games",
    )

    enriched = await desk.run("agent", "sports-enrich", {})

    assert enriched.state["first"] == "Hawks x Owls with 2 teams"
    assert enriched.state["second"] == "Lions x Bears with 2 teams"
    assert enriched.state["third"] is None
    assert enriched.state["workflow-status"] == "skipped"
    for game in await desk.documents("sport:Event"):
        control = game["value"]["version_control"]
        assert (control["processing"], control["enriched"]) == (False, True)
        assert game["metadata"]["provider"] == "league-api"


ARTICLES: Final = [
    {"title": "Transfer window opens with a record signing", "url": "https://news.test/a"},
    {"title": "Cooking for athletes", "url": "https://news.test/b"},
    {"title": "Transfer rumours before the window closes", "url": "https://news.test/c"},
]


async def test_a_news_chat_reasons_searches_streams_and_keeps_the_thread(desk: Desk) -> None:
    whole(await desk.install("agent-templates/news-chat"))
    stored = await desk.run("workflow", "store-news", {"articles": ARTICLES})
    assert stored.state == {"stored": 3, "workflow-status": "executed"}
    groups = (await desk.definition("workflow", "store-news"))["context-variables"]
    assert sorted(groups["google-genai"]) == ["api_key", "credential", "project_id"]
    question = [{"role": "user", "content": "transfer news?"}]

    ended = await desk.run("agent", "news-chat", {"messages": question}, stream_workflows=True)

    assert ended.run.status == "executed"
    assert [status for _, status in ended.steps] == ["executed"] * 5
    assert ended.state["search_query"] == "transfer window"
    assert {card["url"] for card in ended.state["objects"]} == {
        "https://news.test/a",
        "https://news.test/c",
    }
    assert ended.state["suggestions"] == ["More about transfer", "More about transfer"]
    done = ended.events[-1]["metadata"]
    (thread,) = await desk.documents("thread")
    started = ended.events[0]["metadata"]
    assert started["thread_id"] == done["thread_id"] == done["document_id"] == thread["_id"]
    assert done["content"] == shown_text(ended.events) == ended.state["response_text"]
    assert done["objects"] == ended.state["objects"]
    assert types_of(ended.events)[-2:] == ["content", "done"]
    assert {"status_update", "workflow_objects", "workflow_start"} <= set(types_of(ended.events))
    told = thread["value"]["messages"]
    assert [message["role"] for message in told] == ["user", "assistant"]
    assert told[1]["content"] == ended.state["response_text"]
    assert thread["value"]["title"] == "Transfer News?"

    payload = {"messages": [{"role": "user", "content": "and now?"}], "thread_id": thread["_id"]}
    await desk.run("agent", "news-chat", payload, thread_id=thread["_id"])

    (thread,) = await desk.documents("thread")
    assert [m["role"] for m in thread["value"]["messages"]] == ["user", "assistant"] * 2
    assert thread["metadata"]["kind"] == "chat"


async def test_a_media_desk_with_every_oddity_drafts_and_publishes(desk: Desk) -> None:
    whole(await desk.install("agent-templates/media-desk"))
    await desk.secret("TEMP_CONTEXT_VARIABLE_PRESS_TOKEN", "Bearer canary-press")

    ended = await desk.run("agent", "media-desk", {"topic": "lions"})

    assert ended.run.status == "executed"
    assert ended.steps == [
        ("narrow-topics", "skipped"),
        ("desk-draft", "executed"),
        ("desk-publish", "executed"),
        ("desk-publish", "skipped"),
    ]
    card = {"title": "Lions win again", "length": 15, "tags": ["sport"], "language": "en"}
    assert_same(ended.state["card"], card, "card")
    assert ended.state["weekday"] == "Wednesday"
    assert ended.state["published"] == "https://desk.test/lions-win-again"
    (sent,) = desk.server.seen
    assert sent.headers["authorization"] == "Bearer canary-press"
    assert sent.json == {**card, "slug": "lions-win-again", "url": ended.state["published"]}
    (article,) = await desk.documents("content-article")
    assert article["metadata"] == {"slug": "lions-win-again"}
    statuses = [(task["name"], task["status"]) for task in ended.run.tasks]
    assert statuses[2:7] == [
        ("article-card", "executed"),
        ("article-card", "skipped"),
        ("slug", "executed"),
        ("weekday", "executed"),
        ("bad-day", "failed"),
    ]
    unpublished = await desk.run("agent", "media-desk", {"topic": "x", "publish": False})
    assert unpublished.state.get("published") is None


async def test_a_blog_with_missing_files_installs_what_there_is_and_runs(desk: Desk) -> None:
    report = await desk.install("agent-templates/sports-blog")
    await desk.secret("MACHINA_CONTEXT_VARIABLE_ODDS_KEY", "canary-odds")
    assert [path.rpartition("/")[2] for path in failed_paths(report)] == [
        "gone.yml",
        "gone.yml",
        "gone.yml",
    ]

    ended = await desk.run("agent", "blog-writer", {"sport": "nfl"})

    assert ended.run.status == "executed"
    assert ended.steps == [
        ("blog-odds", "executed"),
        ("blog-post", "executed"),
        ("blog-illustrate", "skipped"),
    ]
    assert ended.state["which"] == "third"
    assert ended.state["post_id"] == "1.5-draft"
    assert sorted(desk.server.last.query) == [("apiKey", "canary-odds"), ("regions", "us,uk")]
    (draft,) = await desk.documents("1.5-draft")
    assert_has(draft, {"value": {"from": "/odds/sports/nfl/odds"}}, "draft")
    assert draft["metadata"] == {"kind": "draft"}


async def test_a_super_bowl_with_broken_quotes_and_paths_still_plays(desk: Desk) -> None:
    report = await desk.install("agent-templates/super-bowl")
    assert len(failed_paths(report)) == 1
    assert "../connectors/desk-tools" in failed_paths(report)[0]

    ended = await desk.run("agent", "super-bowl", {})

    assert ended.run.status == "executed"
    assert_has(
        ended.state,
        {"games": [{"id": "g1"}], "broken": None, "slug": "sr-match-59-order-card"},
        "state",
    )
    statuses = {task["name"]: task["status"] for task in ended.run.tasks}
    assert set(statuses.values()) == {"executed"}  # the condition with !== was understood
    (game,) = await desk.documents("soccer-game")
    assert game["metadata"] == {"event": "sr:match:59"}


async def test_a_copilot_administers_the_server_and_fetches_pages(desk: Desk) -> None:
    whole(await desk.install("agent-templates/copilot"))
    await desk.secret("TEMP_CONTEXT_VARIABLE_COPILOT", "canary-copilot")

    ended = await desk.run("agent", "copilot", {}, may_administer=True)

    assert ended.run.status == "executed"
    assert_has(
        ended.state,
        {
            "names": ["copilot-fetch", "copilot-tools"],
            "secrets": ["TEMP_CONTEXT_VARIABLE_COPILOT", "TEMP_CONTEXT_VARIABLE_NEW"],
            "scheduled": True,
            "run_status": "scheduled",
            "stored": 2,
            "page": "/pages/1?draft=false",
            "posted": "page /pages/1?draft=false",
        },
        "state",
    )
    fetched, posted = desk.server.seen
    assert fetched.headers["x-project-token"] == "canary-copilot"
    assert posted.json["token"] == "canary-copilot"
    for secret in ("canary-copilot", "canary-new-secret"):
        assert secret not in f"{ended.run} {ended.events}"


async def test_a_setup_agent_writes_the_folders_once(desk: Desk) -> None:
    whole(await desk.install("agent-templates/setup-desk"))

    first = await desk.run("agent", "desk-setup", {})
    second = await desk.run("agent", "desk-setup", {})

    assert first.state["workflow-status"] == "executed"
    assert second.state["workflow-status"] == "skipped"
    assert second.state["setup-register"] is True
    (folders,) = await desk.documents("doc-structure")
    assert folders["value"][0]["items"][0]["metadata"] == {"name": ["content-article"]}
    assert len(await desk.documents("setup-register")) == 1
    whole(await desk.install("agent-templates/setup-desk"))


async def test_a_daily_recap_reads_every_odd_expression(desk: Desk) -> None:
    whole(await desk.install("agent-templates/daily-recap"))
    await desk.secret("TEMP_CONTEXT_VARIABLE_MAIL", "canary-mail")

    ended = await desk.run("agent", "daily-recap", {"cities": ["Rome", "Oslo"]})

    assert ended.run.status == "executed"
    assert ended.state["last_key"] == MASK  # the task's connector overwrote it with its own key
    assert ended.state["lines"] == [
        "About Rome news / 01 May / Hello you / 5",
        "About Oslo news / 01 May / Hello you / 5",
    ]
    assert "canary-mail" not in f"{ended.run} {ended.events}"


async def test_a_skill_answers_from_its_reference(desk: Desk) -> None:
    whole(await desk.install("skills/match-scout"))

    ended = await desk.run("skill", "match-scout", {"match": {"title": "Lions v Bears"}})

    assert ended.run.status == "executed"
    assert_has(
        ended.state,
        {"report": "Lions v Bears: Look at both sides.", "slug": "lions-v-bears"},
        "state",
    )
    (reference,) = await desk.documents("skill-reference")
    assert reference["metadata"] == {"skill": "match-scout"}
    whole(await desk.install("skills/match-scout"))
    assert len(await desk.documents("skill-guide")) == 1


@pytest.fixture
def answer_with(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Makes the server answer everything with one value."""

    def set_answer(value: Any) -> None:
        monkeypatch.setattr(deployment.server, "answer", lambda seen: ok(value))

    return set_answer

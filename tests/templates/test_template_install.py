"""Installing: every kind, every irregularity, the report, the second time, what stays as it was."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, cast

import pytest

from machina.errors import TooLarge
from machina.settings import Settings
from machina.store import Store
from machina.store.definitions import Kind
from machina.templates import Counts, InstallBusy, TemplateReport, Templates
from machina.templates.archive import ArchiveRefused
from machina.templates.bundle import MemoryBundle
from machina.templates.install import Installer, status_on_install
from machina.templates.manifest import NoTemplate
from machina.templates.sources import list_templates, open_folder, read_plans
from tests.templates.packing import BUNDLES, SOURCE, bundles, install, zipped, zipped_folder


async def definition(store: Store, kind: str, name: str) -> dict[str, Any]:
    found = await store.definitions.get("default", cast(Kind, kind), name)
    assert found is not None
    return found


async def install_files(store: Store, files: dict[str, str]) -> TemplateReport:
    """Installs a bundle of these files."""
    bundle = MemoryBundle({path: text.encode() for path, text in files.items()})
    (plan,) = read_plans(bundle)
    return await Installer(store, "default").install(plan, SOURCE)


def failures(made: TemplateReport) -> list[str]:
    return [result["message"] for result in made.results if not result["status"]]


async def test_a_regular_template_installs_in_the_listed_order_and_form(store: Store) -> None:
    made = await install(store, "agent-templates/weather")
    answer = made.as_answer()
    assert answer["status"] is True
    results = answer["data"]["results"]
    agent = await definition(store, "agent", "weather")
    assert results[0] == {"data": {"id": agent["_id"]}, "message": "agent saved", "status": True}
    messages = [
        [r["message"] for r in each] if isinstance(each, list) else each["message"]
        for each in results
    ]
    assert messages == [
        "agent saved",
        "workflow saved",
        ["prompt saved", "prompt saved"],
        "prompt saved",
        ["mapping saved", "mapping saved"],
        "mapping saved",
        "connector saved",
        "connector saved",
        ["skill saved", "document saved", "document saved"],
        ["document saved", "document saved"],
        "project manifest saved",
    ]


async def test_a_second_installation_updates_everything_and_changes_nothing(store: Store) -> None:
    await install(store, "agent-templates/weather")
    before = await definition(store, "workflow", "forecast")
    made = await install(store, "agent-templates/weather")
    assert Counts.of([made]) == Counts(saved=0, updated=16, skipped=0, failed=0)
    assert made.as_answer()["data"]["results"][0] == {"message": "agent updated", "status": True}
    after = await definition(store, "workflow", "forecast")
    assert {k: v for k, v in after.items() if k != "updated"} == {
        k: v for k, v in before.items() if k != "updated"
    }
    _, documents = await store.documents.search("default", {})
    assert documents == 5
    _, skills = await store.definitions.search("default", "skill", {})
    assert skills == 1


async def test_a_definition_is_kept_as_its_author_wrote_it(store: Store) -> None:
    await install(store, "agent-templates/weather")
    workflow = await definition(store, "workflow", "forecast")
    assert workflow["inputs"] == {
        "city": "$.get('city')",
        "limit": "250",
        "since": "2026-01-31",
        "languages": ["en", "pt", False],
    }
    assert workflow["context-variables"] == {
        "debugger": {"enabled": True},
        "google-genai": {
            "credential": "$TEMP_CONTEXT_VARIABLE_CREDENTIAL",
            "project_id": "$TEMP_CONTEXT_VARIABLE_OTHER",
            "api_key": "$TEMP_CONTEXT_VARIABLE_KEY",
        },
    }
    assert workflow["tasks"][0]["inputs"] == {"$ref.x": 1}
    assert workflow["tasks"][0]["outputs"]["text"] == "f\"{$.get('temperature')} degrees\"\n"
    assert await store.definitions.get("default", "workflow", "old-forecast") is None


async def test_a_connector_is_stored_with_its_one_implementation_file(store: Store) -> None:
    await install(store, "agent-templates/weather")
    script = await definition(store, "connector", "forecast-tools")
    file = BUNDLES / "connectors/forecast-tools/scripts/other_name.py"
    assert script["filecontent"] == file.read_text()
    assert (script["filename"], script["filetype"]) == ("scripts/other_name.py", "pyscript")
    rest = await definition(store, "connector", "weather-api")
    assert json.loads(rest["filecontent"])["openapi"] == "3.0.1"


async def test_connectors_of_every_other_form_are_stored_or_reported(store: Store) -> None:
    made = await install(store, "connectors/inline")
    assert (await definition(store, "connector", "inline"))["apiSpec"]["openapi"] == "3.0.0"
    assert "filecontent" not in await definition(store, "connector", "absent-but-inline")
    assert set(await definition(store, "connector", "bare")) >= {"name", "description"}
    from_yaml = await definition(store, "connector", "yaml-spec")
    assert json.loads(from_yaml["filecontent"]) == {"openapi": "3.0.0", "paths": {}}
    broken, outside = failures(made)
    assert "broken.json: is no JSON" in broken
    assert "must lie in the directory" in outside
    assert await store.definitions.get("default", "connector", "broken-json") is None
    await install(store, "connectors/home-grown")
    grown = await definition(store, "connector", "home-grown")
    assert grown["filetype"] == "restapi"
    assert list(grown["apiSpec"]["paths"]) == ["/news/{topic}", "/notes"]


async def test_texts_become_documents_by_name_and_metadata(store: Store) -> None:
    await install(store, "agent-templates/weather")
    (guide,) = await store.documents.find("default", {"name": "skill-guide"})
    assert guide["value"] == (BUNDLES / "agent-templates/weather/skill/docs/guide.md").read_text()
    assert guide["metadata"] == {
        "category": "guide",
        "skill": "weather-skill",
        "reference_id": "guide",
    }
    assert (guide["title"], guide["filename"], guide["filetype"]) == (
        "Guide",
        "docs/guide.md",
        "markdown",
    )
    (schema,) = await store.documents.find("default", {"name": "skill-schema"})
    assert schema["metadata"] == {"skill": "weather-skill"}
    assert schema["value"] == '{"type": "object"}\n'
    (notes,) = await store.documents.find("default", {"name": "weather-notes"})
    assert (notes["value"], notes["metadata"]) == ("city,degrees\nLisbon,21\n", {"topic": "notes"})


async def test_references_with_other_metadata_stay_documents_of_their_own(store: Store) -> None:
    await install(store, "agent-templates/weather")
    await install(store, "skills/lookup")
    guides = await store.documents.find("default", {"name": "skill-guide"})
    assert [g["metadata"].get("skill") for g in guides] == ["lookup", "weather-skill"]
    assert guides[0]["value"] == "Odd guide.\n"


async def test_a_document_keeps_metadata_that_others_added(store: Store) -> None:
    files = {
        "_install.yml": "datasets: [{type: document, path: i.yml}]",
        "i.yml": "document: {name: d, metadata: {a.b: 1, c: 2}, value: {x: 1}, title: T}",
    }
    await install_files(store, files)
    (found,) = await store.documents.find("default", {"name": "d"})
    assert (found["value"], found["metadata"]) == ({"x": 1}, {"a.b": 1, "c": 2})
    await store.documents.update("default", {"_id": found["_id"]}, {"metadata.kept": True})
    made = await install_files(store, files)
    assert made.entries[0].results == [{"message": "document updated", "status": True}]
    (found,) = await store.documents.find("default", {"name": "d"})
    assert found["metadata"] == {"a.b": 1, "c": 2, "kept": True}


async def test_nested_datasets_install_and_missing_files_are_reported(store: Store) -> None:
    made = await install(store, "agent-templates/sports-blog")
    assert [entry.results[0]["status"] for entry in made.entries] == [True] * 3 + [False] * 2
    assert [entry.results[0]["message"] for entry in made.entries[:3]] == [
        "agent saved",
        "agent updated",
        "agent updated",
    ]
    assert (await definition(store, "agent", "blog-writer"))["title"] == "Number 3"
    failed = made.entries[3].results[0]
    assert failed["error"]["id"] == "template_file_missing"
    assert failed["message"] == (
        "agent-templates/sports-blog/workflows/missing.yml: "
        "no such file in the template's repository."
    )
    assert failed["path"] == "workflows/missing.yml"


async def test_every_oddity_is_installed_skipped_or_reported_in_its_place(store: Store) -> None:
    made = await install(store, "agent-templates/odd")
    shown = [(entry.path, [r["message"] for r in entry.results]) for entry in made.entries]
    expected: list[tuple[str, list[str]]] = [
        ("../connectors/forecast-tools/forecast-tools.yml", ["no such file"]),
        ("prompts.yml", ["prompt saved", "item 2: A definition needs", "item 4: a prompt must"]),
        ("mapping.yml", ["mapping saved"]),
        (
            "rootless.yml",
            ["skill saved", "document saved", "absent.md: no such", "without a f", "listed as"],
        ),
        ("empty.yml", ["skipped: empty.yml: the file is empty"]),
        ("comments.yml", ["skipped: comments.yml: the file is empty"]),
        ("_folders.yml", ["skipped: agent-templates/odd/_folders.yml: folders of a user"]),
        ("kubernetes.yml", ["no root key of a definition"]),
        ("broken.yml", ["broken.yml: line 3, column 1: found"]),
        ("nameless.yml", ["A definition needs a name"]),
        ("agents.yml", ["agent saved", "agent saved"]),
        ("flow.yml", ["workflow saved", "workflow saved"]),
        ("rootless-agent.yml", ["agent saved"]),
        ("half.yml", ["nowhere.py: no such file"]),
        ("latin.yml", ["byte 20 is not UTF-8"]),
        ("latin.yml", ["not UTF-8"]),
        ("", ["17: an entry of 'datasets' without a path"]),
        ("", ["an entry of 'datasets' without a path"]),
    ]
    assert [path for path, _ in shown] == [path for path, _ in expected]
    for (path, messages), (_, parts) in zip(shown, expected, strict=True):
        assert len(messages) == len(parts), (path, messages)
        for message, part in zip(messages, parts, strict=True):
            assert part in message, path
    assert (await definition(store, "agent", "odd-three"))["workflows"] == [{"name": "deep-flow"}]
    (guide,) = await store.documents.find("default", {"name": "skill-reference"})
    assert guide["metadata"] == {"skill": "odd-skill"}
    assert await store.definitions.get("default", "connector", "half") is None


async def test_a_manifest_gets_what_it_extends_first(store: Store) -> None:
    made = await install(store, "agent-templates/extending")
    messages = [entry.results[0]["message"] for entry in made.entries]
    assert messages[0] == "workflow saved"
    assert messages[1:4] == ["agent saved", "agent updated", "agent updated"]
    assert "in a circle" in messages[6]
    assert "no such manifest" in messages[7]
    assert messages[8] == "workflow saved"


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("setup: {title: x}", "lists no datasets"),
        ("datasets: {a: b}", "lists no datasets"),
        ("[a]", "is no manifest"),
        ("", "is no manifest"),
        ("a: [", "_install.yml: line "),
        ("datasets: [{path: ../up.yml}]", "leaves the repository"),
        ("datasets: [{path: /etc/passwd}]", "not a relative path"),
        ("datasets: [{path: other/_install.yml}]", "skipped: other/_install.yml"),
    ],
)
async def test_a_manifest_that_is_no_use_says_why(store: Store, manifest: str, reason: str) -> None:
    made = await install_files(
        store, {"_install.yml": manifest, "other/_install.yml": "datasets: []"}
    )
    (result,) = made.results
    assert reason in result["message"]


async def test_what_the_store_cannot_keep_is_reported_and_the_rest_installs(store: Store) -> None:
    made = await install_files(
        store,
        {
            "_install.yml": "datasets: [{path: a.yml}, {path: b.yml}]",
            "a.yml": 'workflow: {name: a, "x\\0": 1}',
            "b.yml": "workflow: {name: b}",
        },
    )
    assert [result["status"] for result in made.results] == [False, True]
    assert failures(made)[0].startswith("a.yml: Field names")


@pytest.mark.parametrize("name", ["a/b", "", "x" * 201, "a\nb"])
async def test_a_name_that_is_none_is_reported(store: Store, name: str) -> None:
    made = await install_files(
        store,
        {
            "_install.yml": "datasets: [{path: a.yml}]",
            "a.yml": json.dumps({"agent": {"name": name}}),
        },
    )
    assert [result["error"]["id"] for result in made.results] == ["definition_invalid"]


async def test_an_old_version_serves_until_its_own_entry_is_written(store: Store) -> None:
    old = {"_install.yml": "datasets: [{path: a.yml}]", "a.yml": "workflow: {name: a, title: old}"}
    await install_files(store, old)
    await install_files(store, old | {"a.yml": "workflow: {name: a, title: [}"})
    assert (await definition(store, "workflow", "a"))["title"] == "old"


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ({}, None),
        ({"context": []}, None),
        ({"context": {}}, None),
        ({"context": {"status": "inactive", "config-frequency": 10}}, "inactive"),
        ({"context": {"status": "active"}}, "active"),
        ({"context": {"config-frequency": 0.1}}, "active"),
        ({"context": {"status": None, "config-frequency": 5}}, "active"),
    ],
)
def test_the_status_on_installation_comes_from_the_context(agent: Any, status: str | None) -> None:
    assert status_on_install(agent) == status


async def test_a_status_that_somebody_set_outlives_installations(store: Store) -> None:
    def files(agent: str) -> dict[str, str]:
        return {"_install.yml": "datasets: [{path: a.yml}]", "a.yml": f"agent: {agent}"}

    await install_files(store, files("{name: a, context: {status: inactive}}"))
    assert (await definition(store, "agent", "a"))["status"] == "inactive"
    await install_files(store, files("{name: a, context: {config-frequency: 1}}"))
    found = await definition(store, "agent", "a")
    assert (found["status"], found["context"]) == ("active", {"config-frequency": 1})
    await store.definitions.merge("default", "agent", found["_id"], {"status": "paused"})
    for _ in range(2):
        await install_files(store, files("{name: a, context: {status: inactive}}"))
        assert (await definition(store, "agent", "a"))["status"] == "paused"
    await install_files(store, files("{name: a, status: active, context: {status: inactive}}"))
    assert (await definition(store, "agent", "a"))["status"] == "active"


async def test_an_agent_that_says_nothing_has_no_status(store: Store) -> None:
    await install(store, "agent-templates/odd")
    assert (await definition(store, "agent", "odd-one"))["status"] == "active"
    assert "status" not in await definition(store, "agent", "odd-two")


async def test_projects_do_not_see_each_others_installations(store: Store) -> None:
    await install(store, "agent-templates/weather", project="other")
    assert await store.definitions.get("default", "agent", "weather") is None
    assert await store.documents.find("default", {}) == []


def test_the_templates_of_a_repository_are_listed_by_path() -> None:
    rows = {row["path"]: row for row in list_templates(bundles())}
    assert len(rows) == 11
    assert rows["agent-templates/weather"]["title"] == "Weather"
    assert rows["agent-templates/weather"]["datasets"][1] == {
        "type": "workflow",
        "path": "./workflows/forecast.yml",
    }
    assert "lists no datasets" in rows["agent-templates/listing-nothing"]["error"]
    assert list_templates(MemoryBundle({"a.yml": b""})) == []


@pytest.mark.parametrize(
    ("template", "directories"),
    [
        ("agent-templates/deep", ["agent-templates/deep/packs/inner"]),
        ("/agent-templates/weather/", ["agent-templates/weather"]),
        ("agent-templates/weather/_install.yml", ["agent-templates/weather"]),
        ("weather", ["agent-templates/weather"]),
        ("inner", ["agent-templates/deep/packs/inner"]),
    ],
)
def test_a_template_is_found_by_its_directory_or_its_name(
    template: str, directories: list[str]
) -> None:
    assert [plan.directory for plan in read_plans(bundles(), template=template)] == directories


def test_without_a_template_all_of_them_are_meant() -> None:
    assert len(read_plans(bundles())) == 11
    with pytest.raises(NoTemplate):
        read_plans(bundles(), template="nowhere")
    with pytest.raises(NoTemplate):
        read_plans(MemoryBundle({"README.md": b"x"}), template="nowhere")


async def test_a_folder_without_a_manifest_gives_every_file_of_ours(store: Store) -> None:
    made = await install_files(
        store,
        {
            "a/agent.yml": "agent: {name: a}",
            "a/flow.yaml": "workflow: {name: w}",
            "ops/pod.yml": "{apiVersion: v1, kind: Pod}",
            "ops/checks.yml": "{name: checks, on: push, jobs: {}}",
            "broken.yml": "a: [",
            "empty.yml": "",
            "README.md": "x",
        },
    )
    assert [entry.path for entry in made.entries] == [
        "a/agent.yml",
        "a/flow.yaml",
        "broken.yml",
        "empty.yml",
    ]
    assert Counts.of([made]).as_text() == "2 saved, 0 updated, 1 skipped, 1 failed"


def test_a_folder_with_nothing_of_ours_is_refused() -> None:
    with pytest.raises(NoTemplate, match="no YAML file"):
        read_plans(bundles(), template="ops")


def test_a_folder_belongs_to_the_repository_around_it(tmp_path: Path) -> None:
    template = tmp_path / "connectors" / "x"
    template.mkdir(parents=True)
    assert open_folder(template).directory == "connectors/x"
    loose = tmp_path / "elsewhere" / "y"
    loose.mkdir(parents=True)
    assert open_folder(loose).directory == ""
    (tmp_path / "elsewhere" / ".git").mkdir()
    assert open_folder(loose).directory == "y"
    assert open_folder(tmp_path / "elsewhere").directory == ""


async def test_archives_install_whole_or_not_at_all(store: Store, settings: Settings) -> None:
    templates = Templates(store, settings)
    whole = zipped_folder(BUNDLES)
    reports = await templates.install_archive("default", io.BytesIO(whole), "all.zip")
    assert len(reports) == 11
    evil = zipped(
        {"_install.yml": "datasets: [{path: a.yml}]", "a.yml": "agent: {name: evil}", "../x": ""}
    )
    with pytest.raises(ArchiveRefused):
        await templates.install_archive("default", io.BytesIO(evil), "evil.zip")
    assert await store.definitions.get("default", "agent", "evil") is None
    small = Templates(store, settings.model_copy(update={"template_max_bytes": 10}))
    with pytest.raises(TooLarge):
        await small.install_archive("default", io.BytesIO(whole), "all.zip")


async def test_one_installation_at_a_time_and_few_waiting(store: Store, settings: Settings) -> None:
    templates = Templates(store, settings)
    calls = [
        asyncio.create_task(templates.install_folder("default", BUNDLES, "skills/lookup"))
        for _ in range(7)
    ]
    done = await asyncio.gather(*calls, return_exceptions=True)
    busy = [isinstance(result, InstallBusy) for result in done]
    assert busy == [False] * 5 + [True] * 2

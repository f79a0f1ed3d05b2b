"""Project manifests: kept as they are, and compared with what is there."""

from __future__ import annotations

from typing import Any

import pytest

from machina.store import Store
from machina.templates.project import check_project
from tests.templates.packing import install


async def test_a_project_manifest_is_kept_and_its_report_says_what_is_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEMP_CONTEXT_VARIABLE_WEATHER", raising=False)
    made = await install(store, "agent-templates/weather")
    (result,) = made.entries[-1].results
    assert result["status"] is True
    assert result["missing"] == {
        "credentials": ["TEMP_CONTEXT_VARIABLE_WEATHER"],
        "config_documents": ["weather-config"],
        "templates": [{"repo": "example/templates", "path": "connectors/absent"}],
        "datasets": [{"name": "weather:City", "min_count": 2}],
    }
    (kept,) = await store.documents.find("default", {"name": "project_manifest"})
    assert kept["value"]["required_credentials"][0]["validation"] == {"type": "non_empty_string"}
    assert kept["metadata"] == {"manifest": "weather-project"}


async def test_nothing_is_missing_once_it_is_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMP_CONTEXT_VARIABLE_WEATHER", "x")
    await store.documents.insert("default", {"name": "weather-config", "value": {}})
    for city in ("Lisbon", "Porto"):
        await store.documents.insert("default", {"name": "weather:City", "value": city})
    made = await install(store, "agent-templates/weather")
    missing = made.entries[-1].results[0]["missing"]
    assert missing["templates"] == [{"repo": "example/templates", "path": "connectors/absent"}]
    del missing["templates"]
    assert missing == {"credentials": [], "config_documents": [], "datasets": []}


async def test_a_credential_that_no_run_would_find_is_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHOP_KEY", "MACHINA_CONTEXT_VARIABLE_SHOP"):
        monkeypatch.setenv(name, "x")
    required = ["$SHOP_KEY", "$MACHINA_CONTEXT_VARIABLE_SHOP"]
    missing = await check_project(store, "default", {"required_credentials": required})
    assert missing["credentials"] == ["SHOP_KEY"]


async def test_odd_manifests_are_checked_as_far_as_they_can_be(store: Store) -> None:
    manifest: dict[str, Any] = {
        "required_credentials": ["MACHINA_TEST_ABSENT", {"name": None}, 7],
        "required_templates": [{"path": ""}, "a/b"],
        "required_config_documents": {"name": "x"},
        "depends_on_datasets": [{"name": "d", "min_count": "many"}, {}],
    }
    assert await check_project(store, "default", manifest) == {
        "credentials": ["MACHINA_TEST_ABSENT"],
        "config_documents": [],
        "templates": [{"path": ""}, {"path": "a/b"}],
        "datasets": [{"name": "d", "min_count": 1}],
    }

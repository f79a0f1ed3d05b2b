"""Project manifests: what a project needs, compared with what is there. Nothing is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from machina.store import Store
from machina.templates.records import TemplateRecords
from machina.vault import from_environment


async def check_project(
    store: Store, project: str, manifest: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """What is missing, by the manifest's own keys; empty lists say that nothing is.

    Credentials are looked up by name in the vault and, as in a run, in the environment.
    """
    return {
        "credentials": await _missing_credentials(store, project, manifest),
        "config_documents": await _missing_documents(store, project, manifest),
        "templates": await _missing_templates(store, project, manifest),
        "datasets": await _missing_datasets(store, project, manifest),
    }


async def _missing_credentials(
    store: Store, project: str, manifest: Mapping[str, Any]
) -> list[str]:
    wanted = [
        str(item.get("name") or "").removeprefix("$")
        for item in _items(manifest, "required_credentials")
    ]
    held = await store.secrets.check(project, [name for name in wanted if name])
    return [name for name, is_held in held.items() if not is_held and not from_environment(name)]


async def _missing_documents(store: Store, project: str, manifest: Mapping[str, Any]) -> list[str]:
    return [
        str(item["name"])
        for item in _items(manifest, "required_config_documents")
        if item.get("name") and not await _has(store, project, str(item["name"]), 1)
    ]


async def _missing_templates(
    store: Store, project: str, manifest: Mapping[str, Any]
) -> list[dict[str, Any]]:
    installed = await TemplateRecords(store).find({"project": project})
    missing = []
    for item in _items(manifest, "required_templates"):
        path = str(item.get("path") or "").strip("/")
        if not any(_is_at(record, path) for record in installed):
            missing.append({key: item[key] for key in ("repo", "path") if key in item})
    return missing


def _is_at(record: Mapping[str, Any], path: str) -> bool:
    """Whether a record is of the template with this path; archives know no more than its end."""
    directory = record["directory"] or str(record["place"]).removesuffix(".zip")
    return bool(path) and (
        directory == path or directory.rpartition("/")[2] == path.rpartition("/")[2]
    )


async def _missing_datasets(
    store: Store, project: str, manifest: Mapping[str, Any]
) -> list[dict[str, Any]]:
    missing = []
    for item in _items(manifest, "depends_on_datasets"):
        least = item.get("min_count")
        wanted = least if isinstance(least, int) and 0 < least <= 1_000_000 else 1
        if item.get("name") and not await _has(store, project, str(item["name"]), wanted):
            missing.append({"name": item["name"], "min_count": wanted})
    return missing


async def _has(store: Store, project: str, name: str, wanted: int) -> bool:
    _, total = await store.documents.search(project, {"name": {"$eq": name}}, limit=1)
    return total >= wanted


def _items(manifest: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    value = manifest.get(key)
    for item in value if isinstance(value, list) else ():
        if isinstance(item, Mapping):
            yield item
        elif isinstance(item, str):
            yield {"name": item, "path": item}

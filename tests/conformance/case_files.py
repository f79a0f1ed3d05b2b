"""Reads the case files of the conformance suite: one YAML document per case, in authors' words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml

HERE: Final = Path(__file__).parent
_KEYS: Final = frozenset(
    ("spec", "vector", "install", "files", "documents", "secrets", "environment", "run", "expect")
)
_EXPECTED: Final = frozenset(
    ("status", "state", "state_has", "content", "error", "events", "tasks", "steps", "documents")
) | frozenset(("requests", "installed", "absent", "tokens", "secrets"))
_POSITIONS: Final = ("input", "condition", "output", "filter", "workflow-output")
_POSITION_OUTPUTS: Final = {"value": "$.get('value')", "workflow-status": "'executed'"}
_REPLY: Final = "http://server.test/reply?"


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the format, and the small template that shows it.

    `install` are the texts of template files, `files` further files beside them by path; `run` is
    one run or a list of them, of which the last is looked at.
    """

    spec: str
    file: str
    install: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)
    documents: list[dict[str, Any]] = field(default_factory=list)
    secrets: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    expect: Mapping[str, Any] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """The section of the format, such as `8.7`."""
        return self.spec.partition(" ")[0]

    @property
    def line(self) -> str:
        """What is said there, in a sentence."""
        return self.spec.partition(" ")[2]

    def __str__(self) -> str:
        return self.spec


def load_cases(folder: str, root: Path = HERE) -> list[Case]:
    """The cases of all files of a folder, in the order of the files.

    Raises:
        ValueError: a case says something that no runner would look at.
    """
    return [
        _read_case(raw, f"{folder}/{path.name}")
        for path in sorted((root / folder).glob("*.yaml"))
        for raw in _documents_of(path)
    ]


def _documents_of(path: Path) -> Iterator[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=loader))
    except yaml.YAMLError as wrong:
        raise ValueError(f"{path.name}: {wrong}") from None
    yield from (raw for raw in documents if raw is not None)


def _read_case(raw: dict[str, Any], file: str) -> Case:
    unknown = (raw.keys() - _KEYS) | (raw.get("expect", {}).keys() - _EXPECTED)
    if unknown:
        raise ValueError(f"{file}, {raw.get('spec')!r}: nobody looks at {sorted(unknown)}.")
    if "vector" in raw:
        raw = raw | _vector(raw["vector"], f"{file}, {raw['spec']!r}")
    if not raw.get("expect"):
        raise ValueError(f"{file}, {raw['spec']!r} expects nothing.")
    run = raw.get("run", [])
    return Case(
        raw["spec"],
        file,
        [_as_text(item) for item in raw.get("install", [])],
        {path: _as_text(item) for path, item in raw.get("files", {}).items()},
        raw.get("documents", []),
        raw.get("secrets", {}),
        raw.get("environment", {}),
        run if isinstance(run, list) else [run],
        raw["expect"],
    )


def _as_text(item: Any) -> str:
    """A file as it was written, or the YAML of a definition."""
    return item if isinstance(item, str) else yaml.safe_dump(item, sort_keys=False)


def _vector(vector: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A case for one expression: `{position, source, state, result, value}`.

    The source stands, as it is, where `position` says, in a workflow whose state is `state`; in
    `output`, `$` is `result`, which a server sends back. What comes of it is `value`.
    """
    position = vector["position"]
    if position not in _POSITIONS or "value" not in vector:
        raise ValueError(f"{where}: a vector has a value and a position, one of {_POSITIONS}.")
    expect: dict[str, Any] = {
        "status": "executed",
        "state": {"value": vector["value"], "workflow-status": "executed"},
    }
    return {
        "install": [{"workflow": _flow_at(position, vector["source"], vector.get("result", {}))}],
        "run": {"workflow": "vector", "payload": vector.get("state", {})},
        "expect": expect,
    }


def _flow_at(position: str, source: Any, result: Any) -> dict[str, Any]:
    flow: dict[str, Any] = {"name": "vector", "outputs": dict(_POSITION_OUTPUTS)}
    task: dict[str, Any] = {"type": "expression", "name": "compute"}
    if position == "workflow-output":
        return flow | {"outputs": _POSITION_OUTPUTS | {"value": source}, "tasks": []}
    if position == "input":
        task |= {"inputs": {"value": source}}
    elif position == "condition":
        task |= {"condition": source, "outputs": {"value": "True"}}
        flow["outputs"]["value"] = "$.get('value', False)"
    elif position == "filter":
        task = {"type": "document", "name": "find", "config": {"action": "search"}}
        task |= {"filters": {"name": "'item'", "value.id": source}}
        task |= {"outputs": {"value": "[d.get('value').get('id') for d in $.get('documents')]"}}
    else:
        url = _REPLY + quote(json.dumps(result))
        task = {"type": "connector", "name": "call", "outputs": {"value": source}}
        task |= {"connector": {"name": "http", "command": "get", "url": url}}
    return flow | {"tasks": [task]}

"""What a file is: its root key decides, then what refers to it, then its fields."""

from __future__ import annotations

from typing import Any

import pytest

from machina.definitions.loading_roots import FileKind, kind_named, read_roots


def kinds(document: Any, hint: FileKind | None = None, name: str = "x.yml") -> list[FileKind]:
    return [root.kind for root in read_roots(document, file_name=name, hint=hint)]


@pytest.mark.parametrize("kind", list(FileKind)[:7])
def test_singular_and_plural_roots_are_synonyms(kind: FileKind) -> None:
    for key in (kind.value, f"{kind.value}s"):
        (one,) = read_roots({key: {"name": "a"}}, file_name="x.yml")
        assert (one.kind, one.items, one.is_list) == (kind, [{"name": "a"}], False)
        (many,) = read_roots({key: [{"name": "a"}, {"name": "b"}]}, file_name="x.yml")
        assert (many.kind, len(many.items), many.is_list) == (kind, 2, True)
        assert kind_named(key) is kind


def test_the_root_key_wins_over_the_word_of_the_manifest() -> None:
    assert kinds({"prompts": [{"name": "a"}]}, FileKind.PROMPT) == [FileKind.PROMPT]
    assert kinds({"mapping": {"name": "a"}}, FileKind.WORKFLOW) == [FileKind.MAPPING]
    assert kinds({"name": "x", "workflow": {"name": "a"}}, FileKind.AGENT) == [FileKind.WORKFLOW]


def test_a_file_with_several_roots_holds_all_of_them() -> None:
    assert kinds({"prompts": [], "mappings": []}) == [FileKind.PROMPT, FileKind.MAPPING]


@pytest.mark.parametrize(
    ("document", "hint", "kind"),
    [
        ({"name": "s", "workflows": [{"name": "w"}], "agents": []}, FileKind.SKILL, FileKind.SKILL),
        ({"name": "s", "workflows": [{"name": "w"}], "agents": []}, None, FileKind.SKILL),
        ({"name": "s", "references": []}, None, FileKind.SKILL),
        ({"name": "a", "workflows": []}, FileKind.AGENT, FileKind.AGENT),
        ({"name": "a", "workflows": [], "context-agent": {}}, None, FileKind.AGENT),
        ({"name": "w", "tasks": []}, None, FileKind.WORKFLOW),
        ({"name": "c", "filetype": "pyscript"}, None, FileKind.CONNECTOR),
        ({"name": "p", "instruction": "x"}, None, FileKind.PROMPT),
        ({"name": "checks", "on": "push", "jobs": {}}, None, FileKind.FOREIGN),
        ({"name": "p", "prompts": [{"name": "x"}]}, FileKind.PROMPT, FileKind.PROMPT),
    ],
)
def test_a_file_without_a_root_is_what_refers_to_it_or_what_its_fields_say(
    document: Any, hint: FileKind | None, kind: FileKind
) -> None:
    assert kinds(document, hint) == [kind]


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"setup": {}, "datasets": []}, FileKind.INSTALL),
        ({"datasets": []}, FileKind.INSTALL),
        ({"setup": {"datasets": []}}, FileKind.INSTALL),
        ({"folders": []}, FileKind.FOLDERS),
        ({"name": "p", "required_credentials": []}, FileKind.PROJECT),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, FileKind.FOREIGN),
        ({"workflow": None}, FileKind.FOREIGN),
        (["a"], FileKind.FOREIGN),
        ("text", FileKind.FOREIGN),
    ],
)
def test_other_files_are_told_apart(document: Any, kind: FileKind) -> None:
    assert kinds(document) == [kind]


def test_a_project_manifest_is_known_by_its_file_name_too() -> None:
    assert kinds({"name": "p", "version": 1}, name="project.manifest.yml") == [FileKind.PROJECT]


def test_other_words_of_a_manifest_name_no_kind() -> None:
    assert [kind_named(word) for word in ("", "teleport", "install", None, 7)] == [None] * 5

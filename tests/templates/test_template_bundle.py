"""Folders as bundles: what is inside is read, and nothing else, by whatever path or link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machina.templates import bundle as module
from machina.templates.bundle import (
    MAX_FILE_BYTES,
    FileMissing,
    FileRefused,
    FolderBundle,
    resolve,
    resolve_below,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside.yml").write_text("secret")
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "b.yml").write_text("x")
    return root


def test_files_are_listed_sorted_without_hidden_ones_and_links(root: Path) -> None:
    for hidden in (".git", ".github", "__MACOSX", "__pycache__"):
        (root / hidden).mkdir()
        (root / hidden / "x.yml").write_text("x")
    (root / ".hidden.yml").write_text("x")
    (root / "0.yml").write_text("x")
    (root / "link").symlink_to(root / "a")
    (root / "link.yml").symlink_to(root / "0.yml")
    assert FolderBundle(root).files() == ["0.yml", "a/b.yml"]


def test_a_link_is_read_inside_and_refused_outside(root: Path) -> None:
    (root / "inside.yml").symlink_to("a/b.yml")
    (root / "outside.yml").symlink_to("../outside.yml")
    (root / "folder").symlink_to("..")
    bundle = FolderBundle(root)
    assert bundle.read("inside.yml") == b"x"
    for path in ("outside.yml", "folder/outside.yml", "../outside.yml"):
        with pytest.raises(FileRefused, match="leads out"):
            bundle.read(path)


def test_what_is_no_regular_file_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    bundle = FolderBundle(root)
    for path in ("pipe", "a"):
        with pytest.raises(FileRefused, match="no regular file"):
            bundle.read(path)
    with pytest.raises(FileRefused):
        bundle.read("loop")
    for path in ("absent", "a/b.yml/c"):
        with pytest.raises(FileMissing, match=path):
            bundle.read(path)


def test_a_file_that_no_record_could_hold_is_refused(root: Path) -> None:
    with (root / "large").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(FileRefused, match="larger than"):
        FolderBundle(root).read("large")


def test_a_folder_without_end_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 1)
    assert FolderBundle(root / "a").files() == ["b.yml"]
    with pytest.raises(FileRefused, match="more than 1 files"):
        FolderBundle(root.parent).files()
    root.joinpath(*["d"] * 40).mkdir(parents=True)
    with pytest.raises(FileRefused, match="deeper"):
        FolderBundle(root).files()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match="cannot be read"):
        FolderBundle(tmp_path / "absent").files()


@pytest.mark.parametrize(
    ("base", "path", "whole"),
    [
        ("a/b", "c.yml", "a/b/c.yml"),
        ("a/b", "./c.yml", "a/b/c.yml"),
        ("a/b", "../../x/y.yml", "x/y.yml"),
        ("a/b", "../..", ""),
        ("", "c d/é:x.yml", "c d/é:x.yml"),
    ],
)
def test_a_path_is_relative_to_the_file_that_names_it(base: str, path: str, whole: str) -> None:
    assert resolve(base, path) == whole


@pytest.mark.parametrize(
    "path",
    [
        "../../../x.yml",
        "..",
        "a/../../../..",
        "/etc/passwd",
        "~/x.yml",
        "C:/x.yml",
        "a\\b.yml",
        "a\0b.yml",
        "a\nb.yml",
        ".git/config",
        "x/.GIT/config",
    ],
)
def test_a_path_out_of_the_repository_is_refused(path: str) -> None:
    with pytest.raises(FileRefused):
        resolve("" if path in ("..", ".git/config") else "a", path)


def test_an_implementation_lies_beside_or_below_its_connector() -> None:
    assert resolve_below("a", "b/c.py") == "a/b/c.py"
    assert resolve_below("", "c.py") == "c.py"
    for path in ("../c.py", "../ab/c.py", "."):
        with pytest.raises(FileRefused, match="must lie"):
            resolve_below("a", path)

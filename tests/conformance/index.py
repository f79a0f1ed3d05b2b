"""The index of the suite: which line of the format is shown in which file.

`uv run python -m tests.conformance.index` writes it into README.md after cases have changed.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final

from tests.conformance.case_files import HERE, Case, load_cases

README: Final = HERE / "README.md"
FOLDERS: Final = ("workflows", "agents", "agents/provider")
BEGIN: Final = "<!-- index: written by `uv run python -m tests.conformance.index` -->\n"


def all_cases() -> list[Case]:
    """The cases of every folder."""
    return [case for folder in FOLDERS for case in load_cases(folder)]


def index_of(cases: list[Case]) -> str:
    """The index in Markdown: a heading per section, a list item per case."""
    lines: list[str] = []
    ordered = sorted(cases, key=_place)
    for section, group in groupby(ordered, key=lambda case: case.section):
        lines += ["", f"## {section}", ""]
        lines += [f"- {case.line} ({case.file})" for case in group]
    return "\n".join([*lines, ""])


def _place(case: Case) -> list[int]:
    """Sections by their numbers; the cases of one keep their order."""
    return [int(part) for part in case.section.split(".")]


def main() -> None:
    """Writes the index into the page."""
    head = README.read_text(encoding="utf-8").partition(BEGIN)[0]
    README.write_text(head + BEGIN + index_of(all_cases()), encoding="utf-8")


if __name__ == "__main__":
    main()

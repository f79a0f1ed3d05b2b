"""Assembles the page: fixed text from `text/`, figures from the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bench.records import Record
from bench.result import Cell, Goal, Table

TEXT: Final = Path(__file__).parent / "text"
FOLDER: Final = "performance"


def write_page(records: Sequence[Record], directory: Path, *, plots: bool) -> None:
    """Writes `performance.md` and, with `plots`, the drawings beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = plots and find_spec("matplotlib") is not None
    if drawn:
        from bench.page.plots import draw  # noqa: PLC0415  # quick runs have no matplotlib

        for record in records:
            for plot in record.result.plots:
                draw(plot, directory / FOLDER / f"{plot.name}.svg")
    (directory / "performance.md").write_text("\n".join(_page(records, drawn)).rstrip() + "\n")


def _page(records: Sequence[Record], drawn: bool) -> Iterator[str]:
    yield _text("intro")
    yield from _machine(records)
    yield from _goals(records)
    for record in records:
        yield f"## {record.title}"
        yield ""
        yield _text(record.name)
        yield from _figures(record, drawn)
        after = _text(f"{record.name}-reading")
        if after:
            yield after
    yield _text("outro")


def _text(name: str) -> str:
    file = TEXT / f"{name}.md"
    return file.read_text() if file.exists() else ""


def _machine(records: Sequence[Record]) -> Iterator[str]:
    if not records:
        return
    machine = records[-1].machine
    yield (
        f"Machine: {machine['cores']} cores ({machine['cpu']}), Linux {machine['kernel']}, "
        f"Python {machine['python']}."
    )
    yield ""


def _goals(records: Sequence[Record]) -> Iterator[str]:
    yield "## Goals"
    yield ""
    yield "| goal | limit | measured | |"
    yield "| --- | --- | --- | --- |"
    for record in records:
        for goal in record.result.goals:
            yield _goal(goal, record)
        if record.failure is not None:
            yield f"| {record.title} | – | **failed**: {record.failure} | **no figure** |"
    yield ""


def _goal(goal: Goal, record: Record) -> str:
    sign = "≤" if goal.at_most else "≥"
    anchor = record.title.lower().replace(",", "").replace(" ", "-")
    reached = "reached" if goal.is_reached else "**not reached**"
    return (
        f"| [{goal.what}](#{anchor}) | {sign} {_number(goal.limit)} {goal.unit} "
        f"| {_number(goal.value)} {goal.unit} | {reached} |"
    )


def _figures(record: Record, drawn: bool) -> Iterator[str]:
    if record.failure is not None:
        yield f"**This scenario failed:** {record.failure}"
        yield ""
    for table in record.result.tables:
        yield from _table(table)
    if drawn:
        for plot in record.result.plots:
            yield f"![{plot.title}]({FOLDER}/{plot.name}.svg)"
            yield ""
    yield from record.result.notes
    checked = "; ".join(record.result.checked)
    if checked:
        yield f"Checked on the way: {checked}."
    yield (
        f"Measured {record.at} UTC at `{record.revision}` in {record.seconds:.0f} s; load average "
        f"{record.load[0]:.1f} before and {record.load[1]:.1f} after."
    )
    yield ""


def _table(table: Table) -> Iterator[str]:
    yield f"*{table.title}*"
    yield ""
    yield "| " + " | ".join(table.columns) + " |"
    yield "| " + " | ".join("---" for _ in table.columns) + " |"
    for row in table.rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"
    yield ""


def _cell(cell: Cell) -> str:
    return cell.replace("|", "\\|") if isinstance(cell, str) else _number(cell)


def _number(value: float) -> str:
    if value == round(value):
        return f"{round(value):,}".replace(",", " ")
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"

"""What a scenario found: goals with their figures, tables, curves, and what was checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

Cell = str | float | int


@dataclass(slots=True)
class Goal:
    """One promise, and what was measured."""

    what: str
    value: float
    limit: float
    unit: str
    at_most: bool = True

    @property
    def is_reached(self) -> bool:
        """Whether the promise is kept."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass(slots=True)
class Table:
    """Rows under column heads; the first column names the row."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(slots=True)
class Plot:
    """Curves over one axis. `name` is the file's."""

    name: str
    title: str
    x: str
    y: str
    curves: dict[str, list[tuple[float, float]]]
    logarithmic: bool = False


@dataclass(slots=True)
class Result:
    """Everything one scenario gives."""

    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    """What was asserted on the way, with counts."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know about this very run, such as a client that was the limit."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """The result of a file."""
        return cls(
            goals=[Goal(**goal) for goal in data["goals"]],
            tables=[Table(**table) for table in data["tables"]],
            plots=[Plot(**plot) for plot in data["plots"]],
            checked=data["checked"],
            notes=data["notes"],
        )


class Session(Protocol):
    """What a scenario works in."""

    quick: bool
    """Small: to see that it runs and its checks hold; no figure of it means anything."""

    def home(self, name: str) -> Path:
        """A new, empty directory."""

    def say(self, text: str) -> None:
        """Tells whoever waits how far it is."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named measurement. `needs_bench_group`: the packages of that group must be installed."""

    name: str
    title: str
    run: Callable[[Session], Result]
    needs_bench_group: bool = True

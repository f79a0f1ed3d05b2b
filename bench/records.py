"""What a scenario's run is kept as: its result, when, on what, under which load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.result import Result


@dataclass(slots=True)
class Record:
    """One run of one scenario."""

    name: str
    title: str
    at: str
    """UTC, to the minute."""
    seconds: float
    load: tuple[float, float]
    """The machine's load average before and after."""
    revision: str
    machine: dict[str, Any]
    result: Result
    failure: str | None = None


def write_records(records: Sequence[Record], path: Path) -> None:
    """Writes the file anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [asdict(record) for record in records]
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_records(path: Path) -> list[Record]:
    """What a file holds; nothing where there is none."""
    if not path.exists():
        return []
    records = []
    for data in json.loads(path.read_text()):
        result = Result.from_json(data.pop("result"))
        load = tuple(data.pop("load"))
        records.append(Record(**data, load=(load[0], load[1]), result=result))
    return records

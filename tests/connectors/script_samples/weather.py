"""A script as authors write them: constants, helpers, a dataclass, a lazy import."""

from dataclasses import asdict, dataclass, field
from typing import Any

UNIT = "C"


@dataclass
class Reading:
    hour: int
    celsius: float = 11.5
    tags: list[str] = field(default_factory=list)


def _shout(text: str) -> str:
    return text.upper()


def forecast(request_data: dict[str, Any]) -> dict[str, Any]:
    import statistics

    params = request_data.get("params") or request_data.get("inputs", {})
    reading = asdict(Reading(int(statistics.mean([5, 7]))))
    reading.pop("tags")
    return {
        "status": True,
        "data": {"city": _shout(params.get("city")), "readings": [reading], "unit": UNIT},
    }

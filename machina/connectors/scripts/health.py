"""What presence and health say about scripts: the level, the limits, and what is not stopped."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from machina.connectors.scripts.isolation import Isolation
from machina.settings import Settings

_LIMITS: Final = {
    "seconds": "script_seconds",
    "cpu_seconds": "script_cpu_seconds",
    "memory_bytes": "script_memory_bytes",
    "processes": "script_processes",
    "open_files": "script_open_files",
    "file_bytes": "script_file_bytes",
    "directory_bytes": "script_directory_bytes",
    "reply_bytes": "script_reply_bytes",
    "children": "script_children",
}


def describe_off() -> dict[str, Any]:
    """What is said where scripts are switched off."""
    return {"enabled": False}


def describe(
    settings: Settings, way: Isolation, interpreter: str, refused: Mapping[int, str]
) -> dict[str, Any]:
    """The isolation in words and figures. Nothing in it is secret."""
    return {
        "enabled": True,
        "level": way.level,
        "name": way.name,
        "own_user": way.other_uid,
        "system_calls_filtered": way.filtered,
        "network": network_word(way),
        "python": interpreter,
        "limits": {name: getattr(settings, field) for name, field in _LIMITS.items()},
        "higher_levels_refused": {str(level): reason for level, reason in refused.items()},
        "not_stopped": not_stopped(way),
    }


def network_word(way: Isolation) -> str:
    """`off`; `guarded`: through the egress guard only; `open`."""
    if not way.network:
        return "off"
    return "open" if way.gate_port is None else "guarded"


def not_stopped(way: Isolation) -> list[str]:
    """Sentences about what a hostile script could still do."""
    told = []
    if way.network and way.gate_port is None:
        told.append(
            "Scripts may connect to every address that this machine reaches, those of loopback, "
            "private networks and cloud metadata included."
        )
    if not way.network and not way.filtered:
        told.append("Scripts may open network connections although the setting says off.")
    if way.level == 1:
        told.append("Scripts may read every file that their user may read.")
        told.append("Scripts may write wherever their user may write.")
        if not way.other_uid:
            told.append("Scripts run as the user of the worker and may send it signals.")
    if way.level == 1 and not way.filtered:
        told.append("A script may leave a process behind that outlives its call.")
    if sys.platform == "linux" and way.level < 3:
        told.append("Scripts see the clock, the memory and the names of this machine.")
    told.append("A defect of the kernel, or what the operator put among the packages.")
    return told

"""The sample agent `hello`, as an author would write it: what `dev` seeds an empty store with."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml


def load_sample() -> list[tuple[str, dict[str, Any]]]:
    """Kind and definition of every part of `hello`; the agent comes last."""
    folder = files("machina.cli") / "samples" / "hello"
    sample: list[tuple[str, dict[str, Any]]] = []
    for name in ("prompt.yml", "listen.yml", "answer.yml", "agent.yml"):
        ((kind, definition),) = yaml.safe_load((folder / name).read_text("utf-8")).items()
        sample.append((kind, definition))
    return sample

"""The events that both references send: the same kinds and texts as the product's sample agent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from machina.connectors.llm.script import Script, parse_script
from machina.events import Event, encode
from machina.ids import EventId

AHEAD = "Thinking about your message …"


def read_script(body: dict[str, Any]) -> Script:
    """The directive in the last message of a request."""
    return parse_script(str(body["messages"][-1]["content"]))


def events(script: Script) -> Iterator[tuple[float, Event]]:
    """Every event with the time it is due, in seconds from the start."""
    tokens = script.tokens or 0
    delay = (script.delay_ms or 0) / 1000
    yield 0.0, Event("start", "", {"agent_name": "hello", "attempt": 1})
    yield 0.0, Event("status_update", AHEAD, {"status_message": AHEAD})
    due = script.first_ms / 1000
    pieces = [f" tok-{index}" if index else "tok-0" for index in range(tokens)]
    for index, piece in enumerate(pieces):
        due += delay if index else 0.0
        yield due, Event("content", piece, {"partial": True})
    text = "".join(pieces)
    yield due, Event("content", text, {"final": True})
    yield due, Event("done", "", {"status": "executed", "content": text})


def lines(script: Script) -> Iterator[tuple[float, bytes]]:
    """The same as finished lines with their ids."""
    for number, (due, event) in enumerate(events(script), start=1):
        yield due, encode(EventId(1, number), event) + b"\n"


def paced(script: Script) -> Iterator[bytes]:
    """The lines at their pace, sleeping in between; for threads and greenlets."""
    began = time.monotonic()
    for due, line in lines(script):
        ahead = began + due - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        yield line

"""A client that reads a stream in a thread and comes back by itself, as a good client does."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx

from tests.journeys.harness import Event, read_events, wait_until


def ask(text: str) -> dict[str, Any]:
    """A body with one message of the user."""
    return {"messages": [{"role": "user", "content": text}]}


def script(text: str) -> dict[str, Any]:
    """A body whose message tells the scripted model what to do."""
    return ask(f"[[script: {text}]]")


class Watcher:
    """Reads a stream in a thread, coming back by itself whenever it is cut before `done`."""

    def __init__(
        self,
        client: httpx.Client,
        body: dict[str, Any],
        *,
        elsewhere: Sequence[httpx.Client] = (),
    ) -> None:
        """Starts with `client`; comes back by any of `elsewhere`, where given."""
        self.broken_lines = 0
        self._clients = elsewhere or (client,)
        self.events: list[Event] = []
        self.times: list[float] = []
        self.run_id = ""
        self.cuts = 0
        self._client = client
        self._body = body
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def wait_events(self, count: int, type: str = "content") -> None:
        wait_until(
            lambda: sum(e["type"] == type for e in list(self.events)) >= count,
            f"{count} events of type {type}",
            30,
        )

    def join(self, seconds: float = 60) -> list[Event]:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the stream did not end"
        return self.events

    def _watch(self) -> None:
        while not (self.events and self.events[-1]["type"] == "done"):
            try:
                self._read()
            except httpx.TransportError:
                pass  # the server is gone: come back
            except AssertionError:
                self.broken_lines += 1
            self.cuts += 1
            time.sleep(0.05)

    def _read(self) -> None:
        with self._open() as response:
            if response.status_code != 200:
                return
            self.run_id = response.headers["x-run-id"]
            for event in read_events(response):
                self.events.append(event)
                self.times.append(time.monotonic())

    def _open(self) -> Any:
        if not self.run_id:
            return self._client.stream("POST", "/agent/stream/hello", json=self._body)
        after = {"after": self.events[-1]["id"]} if self.events else {}
        path = f"/execution/agent-run/{self.run_id}/stream"
        return random.choice(self._clients).stream("GET", path, params=after)

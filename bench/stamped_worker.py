"""A worker of the product whose scripted model says, in place of each word, when it said it.

For measurements of delivery from the model to the client: everything but the words is the
product's own. Run as `python -m bench.stamped_worker DATA_DIR THREADS`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from machina.cli.preflight import load_service_settings
from machina.connectors.llm.base import ChatDelta, ChatRequest, Provider
from machina.connectors.llm.scripted import ScriptedProvider
from machina.observability.logging import configure
from machina.queue.names import Queue
from machina.worker.app import run_worker
from machina.worker.crew import open_crew
from machina.worker.providers import Providers


class StampedProvider(ScriptedProvider):
    """Paced as the script says; each piece is the monotonic time in nanoseconds."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """See `Provider.chat`."""
        async for delta in super().chat(request):
            yield replace(delta, text=str(time.monotonic_ns())) if delta.text else delta


class StampedProviders(Providers):
    """Only that one."""

    def provider_for(self, connector: Mapping[str, Any]) -> Provider:
        """The stamped provider, whatever the connector says."""
        return self._made.setdefault("stamped", StampedProvider())


async def _work(data_dir: Path, threads: int) -> None:
    settings = load_service_settings(data_dir, worker_threads=threads)
    configure(settings, process="worker")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_worker(
        settings,
        queues=list(Queue),
        threads=threads,
        stop=stop,
        execute_factory=partial(open_crew, make_providers=StampedProviders),
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(Path(sys.argv[1]), int(sys.argv[2])))

"""Metrics as text, and a small server for processes that have no API to ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest, start_http_server
from prometheus_client.registry import Collector

from machina.errors import SettingsInvalid

log = structlog.get_logger(__name__)

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


def expose(source: Collector) -> bytes:
    """The Prometheus text of what `source` collects. May read files: call it off the event loop."""
    return generate_latest(source)


@contextmanager
def serve_metrics(source: Collector, host: str, port: int) -> Iterator[None]:
    """Serves the text on a port, from a thread, to whoever can reach it.

    Raises:
        SettingsInvalid: the port cannot be had.
    """
    try:
        server, thread = start_http_server(port, host, source)
    except OSError as failed:
        raise SettingsInvalid(
            f"MACHINA_METRICS_PORT={port}: cannot listen on {host} ({failed}); choose another port."
        ) from failed
    log.info("metrics.listening", host=host, port=port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

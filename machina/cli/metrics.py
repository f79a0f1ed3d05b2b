"""The metrics of the processes: each keeps its own, the worker that was started shows them all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from machina.observability.process_group import ProcessGroup
from machina.settings import Settings

if TYPE_CHECKING:
    from machina.observability.metrics import Metrics


@contextmanager
def open_metrics(settings: Settings | None = None) -> Iterator[Metrics]:
    """The metrics of this process, which the others of its group see as well.

    Args:
        settings: Those of a worker: it has no API to ask, and so shows its metrics on their port,
            unless it is in a group.

    Raises:
        SettingsInvalid: the port cannot be had.
    """
    from machina.observability.exposition import serve_metrics
    from machina.observability.metrics import make_metrics
    from machina.observability.sharing import join_group

    with join_group(os.environ) as share:
        metrics = make_metrics(share=share)
        if share is not None or settings is None or settings.metrics_port is None:
            yield metrics
            return
        with serve_metrics(metrics.source, settings.metrics_host, settings.metrics_port):
            yield metrics


def show_group(settings: Settings, group: ProcessGroup) -> AbstractContextManager[None]:
    """Shows the metrics of a group of workers on the port of the settings, if there is one.

    Raises:
        SettingsInvalid: on entering, when the port cannot be had.
    """
    if settings.metrics_port is None:
        return nullcontext()
    from machina.observability.exposition import serve_metrics
    from machina.observability.sharing import make_collector

    source = make_collector(group.directory)
    return serve_metrics(source, settings.metrics_host, settings.metrics_port)

"""The metrics of workers: each process keeps its own, the one that was started shows them all."""

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
def open_metrics(settings: Settings) -> Iterator[Metrics]:
    """The metrics of this process, on the port of the settings unless a supervisor shows them.

    Raises:
        SettingsInvalid: the port cannot be had.
    """
    from machina.observability.exposition import serve_metrics
    from machina.observability.metrics import make_metrics
    from machina.observability.sharing import join_group

    share = join_group(os.environ)
    metrics = make_metrics(share=share)
    if share is not None or settings.metrics_port is None:
        yield metrics
        return
    with serve_metrics(metrics.source, settings.metrics_host, settings.metrics_port):
        yield metrics


def show_group(settings: Settings, group: ProcessGroup) -> AbstractContextManager[None]:
    """Shows the metrics of a whole group on the port of the settings, if there is one.

    Raises:
        SettingsInvalid: on entering, when the port cannot be had.
    """
    if settings.metrics_port is None:
        return nullcontext()
    from machina.observability.exposition import serve_metrics
    from machina.observability.sharing import make_collector

    source = make_collector(group.directory)
    return serve_metrics(source, settings.metrics_host, settings.metrics_port)

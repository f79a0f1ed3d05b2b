"""From a run to the response that relays it: what a starter and what a returning client gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends
from starlette.responses import Response

from machina.admission import Handle
from machina.api.deps import BeganDep, EncoderDep, HandleDep, ResourcesDep, StreamsDep
from machina.api.open_streams import OpenStreams
from machina.api.starting import Started
from machina.api.streaming import RunStream
from machina.ids import BEGINNING, EventId
from machina.resources import Resources
from machina.runs.run import Run
from machina.wire import Encoder

_NOT_BUFFERED: Final = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
    "Vary": "Accept",
}


class RunStreams:
    """Opens the stream of one request."""

    def __init__(
        self,
        resources: Resources,
        streams: OpenStreams,
        handle: Handle,
        encoder: Encoder,
        began: float,
    ) -> None:
        """`began` is when the request came, by the monotonic clock."""
        self._resources = resources
        self._streams = streams
        self._handle = handle
        self._encoder = encoder
        self._began = began

    async def of_started(self, started: Started, resume: EventId) -> Response:
        """The stream for a request that started a run, or joined the one its key had made.

        `resume` counts for a join only: a run that was just made has no past.
        """
        run = started.run
        if not started.created:
            return await self._open(run, resume)
        on_gone = partial(self._resources.runs.cancel, run) if run.cancel_on_disconnect else None
        return await self._open(run, BEGINNING, fresh=True, on_gone=on_gone)

    async def of_returning(self, run: Run, after: EventId) -> Response:
        """The stream for a client that comes back, or for another one that wants to watch.

        Raises:
            TooManyViewers: 503.
            ResumeAhead: 409, `after` lies ahead of the log.
            Gone: 410, the log has expired.
        """
        self._handle.view()
        return await self._open(run, after)

    async def _open(
        self,
        run: Run,
        after: EventId,
        *,
        fresh: bool = False,
        on_gone: Callable[[], Coroutine[Any, Any, Any]] | None = None,
    ) -> Response:
        viewing, encoder = self._resources.viewing, self._encoder
        view = await self._handle.hold(viewing.open(run, after=after, fresh=fresh))
        self._streams.metrics.opened.labels(opening_of(run, after, fresh=fresh)).inc()
        headers = _NOT_BUFFERED | run_headers(run)
        if view.at_end:
            return Response(b"", encoder.ended_status, headers, encoder.content_type)
        return RunStream(
            view,
            encoder,
            self._streams,
            headers=headers,
            on_first=self._note_first if fresh else self._handle.succeeded,
            on_gone=on_gone,
        )

    def _note_first(self) -> None:
        """The run that this request started has said its first word."""
        self._handle.succeeded()
        self._streams.metrics.first_event_seconds.observe(time.monotonic() - self._began)


def opening_of(run: Run, after: EventId, *, fresh: bool) -> str:
    """What a stream is counted as: `start`, `resume`, `replay` or `join`."""
    if fresh:
        return "start"
    if after != BEGINNING:
        return "resume"
    return "replay" if run.is_final else "join"


def run_headers(run: Run) -> dict[str, str]:
    """Where a client finds the run again: its id under both names, and its stream."""
    kind = "agent" if run.kind == "agent" else "workflow"
    return {
        "X-Run-Id": run.id,
        "X-Task-ID": run.id,
        "Content-Location": f"/execution/{kind}-run/{run.id}/stream",
    }


async def run_streams(
    resources: ResourcesDep,
    streams: StreamsDep,
    handle: HandleDep,
    encoder: EncoderDep,
    began: BeganDep,
) -> RunStreams:
    """What opens the stream of this request."""
    return RunStreams(resources, streams, handle, encoder, began)


RunStreamsDep = Annotated[RunStreams, Depends(run_streams)]

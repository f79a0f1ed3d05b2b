"""Waiting for a run in the foreground: to its end, but no longer than clients or a drain allow."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends

from machina.api.deps import ResourcesDep, StreamsDep
from machina.api.open_streams import OpenStreams
from machina.resources import Resources
from machina.runs.run import Run


class Foreground:
    """Waits for runs on behalf of one request."""

    def __init__(self, resources: Resources, streams: OpenStreams) -> None:
        self._resources = resources
        self._streams = streams

    async def wait(self, run: Run) -> Run:
        """The newest record: when the run has ended, or when the waiting must end.

        A process that drains answers what it knows; the run goes on and can be asked for elsewhere.
        """
        runs = self._resources.runs
        seconds = self._resources.settings.sync_wait_seconds
        ended = asyncio.create_task(runs.wait(run, seconds))
        drained = asyncio.create_task(self._streams.drained.wait())
        try:
            await asyncio.wait((ended, drained), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
        finally:
            ended.cancel()
            drained.cancel()
        return await runs.wait(run, 0)


async def foreground(resources: ResourcesDep, streams: StreamsDep) -> Foreground:
    """What waits for the run of this request."""
    return Foreground(resources, streams)


ForegroundDep = Annotated[Foreground, Depends(foreground)]

"""The metrics of all processes of this instance, as Prometheus reads them."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends
from starlette.responses import Response

from machina.api import system_examples as examples
from machina.api.deps import ResourcesDep
from machina.api.security import require
from machina.auth import Scope
from machina.observability.exposition import CONTENT_TYPE, expose

router = APIRouter(tags=["System"])


@router.get(
    "/metrics",
    summary="Metrics in the Prometheus text format",
    response_class=Response,
    responses=examples.METRICS_ANSWERS,
    dependencies=[Depends(require(Scope.ADMIN))],
)
async def show_metrics(resources: ResourcesDep) -> Response:
    """Needs an administrator's key. Sums over every process that was started together with this
    one; docs/metrics.md says what each metric means.
    """
    metrics = resources.metrics
    metrics.publish()
    text = await asyncio.to_thread(expose, metrics.source)
    return Response(text, headers={"Content-Type": CONTENT_TYPE})

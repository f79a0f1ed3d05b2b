"""The system about itself: the guide's two health routes, liveness, readiness, breaker reset."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path

from machina.admission import Admission
from machina.api import system_examples as examples
from machina.api.deps import HandleDep, ResourcesDep, SupervisorDep
from machina.api.envelopes import Answer, one
from machina.api.examples import PUBLIC
from machina.api.security import require
from machina.auth import Scope
from machina.breaker import State
from machina.errors import MachinaError, NotFound, Unavailable
from machina.resources import Resources

router = APIRouter(prefix="/system", tags=["System"])

_NO_PREFIX: Final = "-"
"""No key has it: the store is asked, and finds nothing."""
_SHOWN_OF_SCRIPTS: Final = ("enabled", "level", "name", "network", "not_stopped")
_ANSWER_SECONDS: Final = 1.0
"""A service that takes longer to answer a ping does not answer."""


class NotReady(Unavailable):
    """This process should get no new requests now."""

    code, title = "not_ready", "Not ready"


@router.get(
    "/client-health-check",
    summary="Whether the API answers",
    responses=examples.HEALTH_ANSWERS,
    openapi_extra=PUBLIC,
)
async def client_health_check() -> Answer:
    """Always the same sentence, for scripts that compare it."""
    return Answer({"data": "System client is healthy"})


@router.get(
    "/streaming-health",
    summary="How streaming is doing in this process",
    responses=examples.STREAMING_HEALTH_ANSWERS,
    openapi_extra=PUBLIC,
)
async def streaming_health(handle: HandleDep, resources: ResourcesDep) -> Answer:
    """`healthy`, or `degraded` while the breaker is not closed or the log's Redis is away."""
    admission = handle.admission
    redis_healthy = await _answers(resources.reader.ping())
    breaker = admission.breaker.snapshot()
    healthy = redis_healthy and breaker.state is State.CLOSED
    gate = admission.gate
    return Answer(
        {
            "status": "healthy" if healthy else "degraded",
            "circuit_breakers": {admission.breaker.name: _breaker_figures(admission)},
            "redis_streams": {
                "active_streams": resources.reader.open_streams,
                "redis_healthy": redis_healthy,
            },
            "web_worker_streams": {
                "active": gate.active,
                "max": gate.capacity,
                "available": gate.capacity - gate.active,
            },
        }
    )


@router.get(
    "/liveness",
    summary="Whether the process lives",
    responses=examples.LIVENESS_ANSWERS,
    openapi_extra=PUBLIC,
)
async def liveness() -> Answer:
    """Answers as long as the event loop turns; asks nothing of other services."""
    return one({"alive": True})


@router.get(
    "/readiness",
    summary="Whether the process should get requests",
    responses=examples.READINESS_ANSWERS,
    openapi_extra=PUBLIC,
)
async def readiness(resources: ResourcesDep, supervisor: SupervisorDep) -> Answer:
    """503 while it drains, while one of its background tasks is down, or while the store or the
    log does not answer; `details` says which. `scripts` is how the workers shut connector scripts
    in, and what that does not stop.
    """
    store, event_log, scripts = await asyncio.gather(
        _answers(resources.store.keys.by_prefix(_NO_PREFIX)),
        _answers(resources.reader.ping()),
        _scripts_of_workers(resources),
    )
    checks = {
        "accepting": not resources.draining,
        "tasks": supervisor.is_healthy,
        "store": store,
        "log": event_log,
    }
    if not all(checks.values()):
        failing = [name for name, holds in checks.items() if not holds]
        raise NotReady(
            f"This process is not ready: {', '.join(failing)}.", retry_after=1, details=checks
        )
    return one({"ready": True} | checks | {"scripts": scripts})


@router.post(
    "/circuit-breaker/reset/{name}",
    summary="Close a circuit breaker by hand",
    responses=examples.BREAKER_RESET_ANSWERS,
    dependencies=[Depends(require(Scope.ADMIN))],
)
async def reset_breaker(
    name: Annotated[str, Path(description="Name of the breaker.", examples=["agent_streaming"])],
    handle: HandleDep,
) -> Answer:
    """Needs an administrator's key. Forgets the failures counted so far."""
    admission = handle.admission
    if name != admission.breaker.name:
        raise NotFound(
            f"There is no circuit breaker '{name[:60]}'; there is '{admission.breaker.name}'.",
            field="name",
        )
    await admission.breaker.reset()
    return one({"name": name} | _breaker_figures(admission), "circuit breaker reset")


def _breaker_figures(admission: Admission) -> dict[str, Any]:
    state, failures, threshold = admission.breaker.snapshot()
    return {"state": str(state), "failure_count": failures, "threshold": threshold}


async def _scripts_of_workers(resources: Resources) -> list[dict[str, Any]]:
    """What the presence rows of the workers say about scripts, each different one once."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            rows = await resources.store.leases.workers()
    except (MachinaError, TimeoutError):  # the check of the store says so
        return []
    told: list[dict[str, Any]] = []
    for scripts in (row.info.get("scripts") for row in rows):
        if isinstance(scripts, dict):
            shown = {name: scripts[name] for name in _SHOWN_OF_SCRIPTS if name in scripts}
            told += [] if shown in told else [shown]
    return told


async def _answers(call: Awaitable[Any]) -> bool:
    """Whether a service answers in time, and not with false."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await call is not False
    except (MachinaError, TimeoutError):
        return False

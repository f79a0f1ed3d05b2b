"""What the documentation shows of the system's routes."""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.api.examples import Responses, refusals


def _exactly(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


HEALTH_ANSWERS: Final[Responses] = {
    200: _exactly("The API answers.", {"data": "System client is healthy"})
}
STREAMING_HEALTH_ANSWERS: Final[Responses] = {
    200: _exactly(
        "The figures of this process.",
        {
            "status": "healthy",
            "circuit_breakers": {
                "agent_streaming": {"state": "closed", "failure_count": 0, "threshold": 5}
            },
            "redis_streams": {"active_streams": 0, "redis_healthy": True},
            "web_worker_streams": {"active": 0, "max": 10, "available": 10},
        },
    )
}
LIVENESS_ANSWERS: Final[Responses] = {
    200: _exactly("The process lives.", {"data": {"alive": True}, "status": True})
}
READINESS_ANSWERS: Final[Responses] = {
    200: _exactly(
        "The process is ready.",
        {
            "data": {
                "ready": True,
                "accepting": True,
                "tasks": True,
                "store": True,
                "log": True,
                "scripts": [
                    {
                        "enabled": True,
                        "level": 3,
                        "name": "bubblewrap",
                        "network": "guarded",
                        "not_stopped": [],
                    }
                ],
            },
            "status": True,
        },
    ),
    **refusals(errors.Unavailable),
}
METRICS_ANSWERS: Final[Responses] = {
    200: {
        "description": "The metrics.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "example": (
                    "# HELP machina_runs_in_flight Runs that workers execute now.\n"
                    "# TYPE machina_runs_in_flight gauge\n"
                    "machina_runs_in_flight 12.0\n"
                ),
            }
        },
    },
    **refusals(errors.Unauthenticated, errors.Forbidden),
}
BREAKER_RESET_ANSWERS: Final[Responses] = {
    200: _exactly(
        "The breaker is closed.",
        {
            "data": {
                "name": "agent_streaming",
                "state": "closed",
                "failure_count": 0,
                "threshold": 5,
            },
            "message": "circuit breaker reset",
            "status": True,
        },
    ),
    **refusals(errors.Unauthenticated, errors.Forbidden, errors.NotFound, errors.Invalid),
}

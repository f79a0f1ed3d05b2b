"""The API as one ASGI application: what it opens, what every request passes, what it routes."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from machina.admission import Admission, AdmissionMiddleware, Gate
from machina.api import openapi
from machina.api.middleware import BodyLimit, Errors, RequestContext, SecurityHeaders
from machina.api.open_streams import OpenStreams, StreamLimits
from machina.api.problems import on_exception
from machina.api.readings import api_readings
from machina.api.routes import ROUTERS
from machina.api.security import Authentication
from machina.api.streaming import Unwind
from machina.errors import MachinaError
from machina.observability.sampling import Sampler
from machina.observability.supervision import Supervisor
from machina.observability.watchdog import LoopWatchdog
from machina.resources import Resources, make_breaker
from machina.settings import Settings
from machina.templates import Templates

OpenResources = Callable[[Settings], AbstractAsyncContextManager[Resources]]

_PROBE_SECONDS: Final = 30.0
"""How long the breaker waits for a probe's first event before another may go."""
_SETTLE_SECONDS: Final = 5.0
_FORM_BYTES: Final = 65_536
"""Room for what a form says around a file."""
_NO_TELEMETRY: Final[TelemetryConfig] = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""The framework's own is on by default; what we measure, we name."""


class MachinaAPI(FastAPI):
    """FastAPI with our own description of itself."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.machina_openapi(self)
        return self.openapi_schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or request; the first to see the server's own `send`."""
        scope["machina.abort"] = _abort_of(send)
        await super().__call__(scope, receive, send)


def _abort_of(send: Send) -> Callable[[], None] | None:
    """How to cut the connection of a client that does not read: closing would wait for it for ever.

    uvicorn's `send` is a method of the object that holds the transport; other servers have none.
    """
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    return cast("Callable[[], None] | None", getattr(transport, "abort", None))


def create_app(settings: Settings, open_resources: OpenResources) -> FastAPI:
    """The API for these settings. Nothing is opened before the server starts it.

    Args:
        open_resources: Opens what the process shares, on the server's event loop; its `background`
            loops are supervised here.
    """
    admission = make_admission(settings)
    app = MachinaAPI(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        version=settings.machina_client_version,
        openapi_tags=openapi.TAGS,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        lifespan=_make_lifespan(settings, open_resources, admission),
        middleware=_middleware(settings, admission),
        exception_handlers={
            MachinaError: on_exception,
            HTTPException: on_exception,
            RequestValidationError: on_exception,
        },
    )
    for router in ROUTERS:
        app.include_router(router)
    return app


def _middleware(settings: Settings, admission: Admission) -> list[Middleware]:
    """What every request passes, outermost first."""
    return [
        # Names the request; everything below logs and answers under its id.
        Middleware(RequestContext),
        # On every answer, refusals included.
        Middleware(SecurityHeaders),
        # Before anything reads a body.
        Middleware(
            BodyLimit,
            limit=settings.max_body_bytes,
            larger={
                "/templates/upload": settings.template_max_bytes + _FORM_BYTES,
                "/connector/executor/": settings.max_upload_bytes,
            },
        ),
        # Before keys are asked for: a preflight carries none.
        *_cors(settings),
        # Takes back permit and view after the last byte, whatever happens below.
        Middleware(AdmissionMiddleware, admission=admission),
        # Streams are served from here, without the stack of everything below.
        Middleware(Unwind),
        # Below this line whatever is raised becomes a problem.
        Middleware(Errors),
        # Below this line there is a caller.
        Middleware(Authentication),
    ]


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=(
                "Authorization",
                "X-Api-Token",
                "X-Project-Token",
                "X-Session-Token",
                "X-Request-Id",
                "Idempotency-Key",
                "Last-Event-ID",
            ),
            expose_headers=(
                "X-Run-Id",
                "X-Task-ID",
                "X-Request-Id",
                "Content-Location",
                "Retry-After",
            ),
            # Keys travel in headers, never in cookies: an origin gets nothing it did not bring.
            allow_credentials=False,
        )
    ]


def make_admission(settings: Settings) -> Admission:
    """The gate of one process; its breaker is the fleet's as soon as that is opened."""
    return Admission(
        Gate(
            settings.max_concurrent_streams,
            wait_seconds=settings.gate_wait_seconds,
            clock=time.monotonic,
            random=random.random,
        ),
        make_breaker(settings),
        max_viewers=settings.max_viewers,
    )


def _make_lifespan(
    settings: Settings, open_resources: OpenResources, admission: Admission
) -> Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with open_resources(settings) as resources:
            admission.breaker = resources.breaker
            await resources.breaker.look()  # the first request finds the fleet's state
            streams = OpenStreams(
                StreamLimits(
                    heartbeat=settings.heartbeat_seconds,
                    send=settings.send_timeout_seconds,
                    drain=settings.drain_seconds,
                    age=settings.max_connection_seconds,
                ),
                is_draining=lambda: resources.draining,
                random=random.random,
                metrics=resources.metrics,
            )
            supervisor = Supervisor(metrics=resources.metrics)
            for name, function in resources.background.items():
                supervisor.start(name, function)
            supervisor.start("streams", streams.run)
            on_tick = resources.metrics.process.loop_lag.labels("api").observe
            supervisor.start("watchdog", LoopWatchdog(on_tick=on_tick).run)
            readings = api_readings(resources, admission, streams)
            supervisor.start("sampler", Sampler(resources.metrics, readings).run)
            try:
                yield {
                    "resources": resources,
                    "streams": streams,
                    "supervisor": supervisor,
                    "templates": Templates(resources.store, settings),
                }
            finally:
                await streams.settle(_SETTLE_SECONDS)
                await supervisor.aclose()

    return lifespan

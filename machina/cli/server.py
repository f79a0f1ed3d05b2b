"""The HTTP server object of one API process: it owns the signals, so that draining is a method."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from machina.cli.listening import BACKLOG
from machina.errors import MachinaError

log = structlog.get_logger(__name__)

SAME_PRESS_SECONDS: Final = 2.0
"""`uv run` forwards Ctrl-C and the terminal sends it too: signals this close together are one."""
MARGIN_SECONDS: Final = 1.0
"""What streams may need beyond the drain time to write their last bytes."""
LINGER_SECONDS: Final = 2
"""How long the rest may take, from then on, before it is cancelled."""


class Server(uvicorn.Server):
    """Stops in two steps: first nothing new starts while streams finish, then connections close."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        drain_seconds: float,
        on_listening: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        opening = _Opening(app)
        config = uvicorn.Config(
            opening,
            loop="auto",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=LINGER_SECONDS,
        )
        super().__init__(config)
        self._opening = opening
        self._drain_seconds = drain_seconds
        self._on_listening = on_listening
        self._clock = clock
        self._asked_at: float | None = None
        self._draining = False

    @property
    def was_forced(self) -> bool:
        """Whether a second signal cut the stop short."""
        return self.force_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for a stop, a later second one for an end at once."""
        now = self._clock()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at >= SAME_PRESS_SECONDS:
            self.force_exit = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, then says so.

        Raises:
            MachinaError: what the application opens cannot be opened.
            SystemExit: it failed otherwise; the log has the traceback.
        """
        try:
            await super().startup(sockets)
        except SystemExit:
            if self._opening.refused is not None:
                raise self._opening.refused from None
            raise
        self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._asked_at is not None and not self.should_exit:
            self._drain(self._clock() - self._asked_at)
        return await super().on_tick(counter)

    def _drain(self, since: float) -> None:
        if not self._draining:
            self._draining = True
            self.lifespan.state["resources"].draining = True
            log.info("api.draining", requests=len(self.server_state.tasks))
        if not self.server_state.tasks or since > self._drain_seconds + MARGIN_SECONDS:
            self.should_exit = True


class _Opening:
    """The application, except that a refusal to open is kept instead of logged as a defect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.refused: MachinaError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failed: list[Message] = []

        async def send_unless_failed(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failed.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, send_unless_failed)
        except BaseException as error:
            if failed and isinstance(error, MachinaError):
                self.refused = error
                failed[0]["message"] = ""  # the traceback
            for message in failed:
                await send(message)
            raise

"""The guarded HTTP client: the only way out for connectors and downloads."""

from __future__ import annotations

import asyncio
import ssl
import time
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport

from machina import __version__
from machina.egress.bodies import ENCODINGS, read_body, too_large
from machina.egress.headers import check_headers
from machina.egress.messages import (
    MAX_REDIRECTS,
    EgressLimits,
    EgressRequest,
    EgressResponse,
)
from machina.egress.policy import EgressPolicy
from machina.egress.redirects import follow
from machina.egress.resolving import GuardedResolver, LookUp, look_up
from machina.egress.urls import host_of, port_of, read_url
from machina.errors import EgressFailed
from machina.settings import Settings

log = structlog.get_logger(__name__)

CONNECT_SECONDS: Final = 10.0
_POOL_IDLE_SECONDS: Final = 30.0
_NAMES_KEPT_SECONDS: Final = 10
_BROKEN: Final = (httpx.HTTPError, aiohttp.ClientError, OSError)


class EgressClient:
    """Calls what the policy allows, through one pool per process. Opens nothing until it is used.

    Proxies of the environment are not heeded: a proxy would resolve names past our checks.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        limits: EgressLimits | None = None,
        look_up: LookUp = look_up,
        certificates: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._certificates = certificates
        self._opening = asyncio.Lock()
        self._limits = limits or EgressLimits()
        self._resolver = GuardedResolver(policy, look_up)
        self._client: httpx.AsyncClient | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> EgressClient:
        """The client with the operator's policy and limits."""
        limits = EgressLimits(
            settings.egress_total_seconds, settings.egress_idle_seconds, settings.egress_max_bytes
        )
        return cls(EgressPolicy.from_settings(settings), limits)

    async def check(self, url: str) -> list[str]:
        """The addresses a program of its own, such as git, may connect to for this URL.

        Raises:
            EgressFailed: `egress_refused`, or `egress_broken` when the name has no address.
        """
        target = read_url(url)
        host, port = host_of(target), port_of(target)
        literal = self._policy.check_host(host, port)
        if literal is not None:
            return [str(literal)]
        try:
            found = await self._resolver.resolve(host, port, 0)  # type: ignore[arg-type]  # 0: any
        except OSError as error:
            raise _unreachable(host, error) from None
        return [entry["host"] for entry in found]

    async def send(self, request: EgressRequest) -> EgressResponse:
        """Sends a request and takes the whole answer, whatever its status.

        Raises:
            EgressFailed: `egress_refused`, `egress_timeout`, `egress_too_large`, `egress_broken`;
                the message names the host and nothing else of the URL.
        """
        check_headers(request.method, request.headers)
        seconds = request.total_seconds or self._limits.total_seconds
        host = host_of(read_url(request.url))
        try:
            async with asyncio.timeout(seconds):
                return await self._send_through(request)
        except TimeoutError:
            raise EgressFailed(
                f"{host} did not answer within {seconds:g} s.",
                code="egress_timeout",
                retryable=True,
            ) from None

    async def aclose(self) -> None:
        """Closes the pool."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send_through(self, request: EgressRequest) -> EgressResponse:
        for left in range(request.redirects, -1, -1):
            response = await self._send_once(request)
            following = follow(request, response) if request.redirects else None
            if following is None:
                return response
            if left:
                request = following
        raise EgressFailed(
            f"{host_of(read_url(request.url))} redirects more than {MAX_REDIRECTS} times.",
            code="egress_broken",
        )

    async def _send_once(self, request: EgressRequest) -> EgressResponse:
        url = read_url(request.url)
        host = host_of(url)
        self._policy.check_host(host, port_of(url))
        started = time.monotonic()
        client = await self._open()
        limit = request.max_bytes or self._limits.max_bytes
        headers = {"Accept": "*/*", **request.headers, "Accept-Encoding": ENCODINGS}
        prepared = client.build_request(request.method, url, headers=headers, content=request.body)
        try:
            response = await client.send(prepared, stream=True)
            try:
                body = await _take(response, limit, host)
            finally:
                await response.aclose()
        except EgressFailed:
            raise
        except _BROKEN as error:
            raise _broken(error, host, self._limits.idle_seconds) from None
        seconds = round(time.monotonic() - started, 3)
        log.debug("egress.answered", host=host, status=response.status_code, seconds=seconds)
        return EgressResponse(
            response.status_code,
            {name.lower(): value for name, value in response.headers.items()},
            body,
            str(url),
        )

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                # Reading the system's certificates takes 30 ms of file access.
                if self._certificates is None:
                    self._certificates = await asyncio.to_thread(httpx.create_ssl_context)
                self._client = self._make_client(self._certificates)
            return self._client

    def _make_client(self, verify: ssl.SSLContext) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=AiohttpTransport(verify=verify, client=lambda: self._make_session(verify)),
            headers={"User-Agent": f"machina-server/{__version__}"},
            timeout=httpx.Timeout(
                self._limits.idle_seconds, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS
            ),
            # Calls of different runs share no cookies.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
        )

    def _make_session(self, verify: ssl.SSLContext) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,  # how many calls there are at once is the worker's affair, not the pool's
            ssl=verify,
            resolver=self._resolver,
            ttl_dns_cache=_NAMES_KEPT_SECONDS,
            keepalive_timeout=_POOL_IDLE_SECONDS,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type",),  # a request without a body has no type
            trust_env=False,
        )


async def _take(response: httpx.Response, limit: int, host: str) -> bytes:
    declared = response.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared[:20]) > limit and response.request.method != "HEAD":
        raise too_large(host, limit)
    encoding = response.headers.get("Content-Encoding", "")
    return await read_body(response.aiter_raw(), encoding, limit, host)


def _broken(error: Exception, host: str, idle_seconds: float) -> EgressFailed:
    # The transport translates freely; the error below says what happened.
    cause = error.__cause__ or error
    if isinstance(cause, aiohttp.ConnectionTimeoutError):
        message = f"{host} could not be reached within {CONNECT_SECONDS:g} s."
        return EgressFailed(message, code="egress_timeout", retryable=True)
    if isinstance(cause, TimeoutError):
        message = f"{host} was silent for {idle_seconds:g} s."
        return EgressFailed(message, code="egress_timeout", retryable=True)
    if isinstance(cause, aiohttp.ClientConnectorError):
        return _unreachable(host, cause)
    if isinstance(error, aiohttp.ClientResponseError):
        return EgressFailed(f"{host} answered something that is not HTTP as we know it.")
    return EgressFailed(f"{host} cut the connection.", retryable=True)


def _unreachable(host: str, error: Exception) -> EgressFailed:
    kind = type(getattr(error, "os_error", error)).__name__
    what = {
        "gaierror": "its name is not known",
        "ConnectionRefusedError": "it refuses the connection",
        "SSLCertVerificationError": "its certificate is not valid",
    }.get(kind, kind)
    return EgressFailed(f"{host} cannot be reached: {what}.", retryable=kind != "gaierror")

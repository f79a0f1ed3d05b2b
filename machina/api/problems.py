"""The one place that makes HTTP out of errors: RFC 9457 members and the envelope clients know.

`status` is the text "error" and not the number, because the official CLI decides by it; readers of
problem+json must ignore a member of the wrong type. The number is in the status line, in
`error.code` and in `meta.code`.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from machina.errors import Invalid, MachinaError, RequestError, Unauthenticated
from machina.events import encode_json
from machina.observability.metrics import REFUSALS

log = structlog.get_logger(__name__)

_OF_FRAMEWORK: Final[Mapping[int, tuple[str, str, str]]] = {
    404: ("not_found", "Not found", "There is nothing at this path; /docs lists what there is."),
    405: (
        "method_not_allowed",
        "Method not allowed",
        "This path exists for other methods; the Allow header names them.",
    ),
}


class UnsupportedMediaType(RequestError):
    """The body is of a type that this route does not read."""

    code, title, status = "unsupported_media_type", "Unsupported media type", 415


class _FrameworkProblem(MachinaError):
    """An error that the framework raised by number."""

    def __init__(self, number: int, detail: str) -> None:
        fallback = ("internal_error" if number >= 500 else "bad_request", detail, detail)
        code, title, message = _OF_FRAMEWORK.get(number, fallback)
        super().__init__(message, code=code)
        self.title, self.status = title, number  # type: ignore[misc]  # named by the framework


class ProblemResponse(Response):
    """An error as the caller gets it."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """Plain ASCII, whatever the message quotes."""
        return encode_json(content)


def problem(
    error: MachinaError, *, instance: str, request_id: str | None, error_id: str | None = None
) -> ProblemResponse:
    """The response for an error; `instance` is the path that was asked."""
    body = problem_body(error, instance=instance)
    body["meta"]["request_id"] = request_id
    if error_id is not None:
        body["error"]["error_id"] = error_id
    return ProblemResponse(body, error.status, _headers(error))


def problem_body(error: MachinaError, *, instance: str) -> dict[str, Any]:
    """The members of a problem, those of RFC 9457 and those of the envelope."""
    named: dict[str, Any] = {
        "code": error.status,
        "id": error.code,
        "title": error.title,
        "message": error.message,
        "retryable": error.retryable,
    }
    if error.field is not None:
        named["field"] = error.field
    body: dict[str, Any] = {
        "type": error.type,
        "title": error.title,
        "status": "error",
        "detail": error.message,
        "instance": instance,
        "data": {},
        "error": named,
        "meta": {"code": error.status},
    }
    if error.details:
        body["details"] = error.details
    return body


def _headers(error: MachinaError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 413:
        headers["Connection"] = "close"  # the rest of the body is not worth reading
    return headers


def problem_of(exception: Exception, scope: Mapping[str, Any]) -> ProblemResponse:
    """The response for anything that was raised while a request was served.

    What is not one of our errors is a defect: it is logged with its trace under an id, and the
    caller learns the id and nothing else.
    """
    instance = str(scope.get("path", ""))
    request_id = scope.get("machina.request_id")
    if isinstance(exception, HTTPException):
        return _problem_of_framework(exception, instance, request_id)
    if isinstance(exception, RequestValidationError):
        exception = _invalid(exception)
    if isinstance(exception, MachinaError):
        _count_refusal(exception, scope)
        return problem(exception, instance=instance, request_id=request_id)
    error_id = secrets.token_hex(8)
    _note_defect(exception, error_id, instance)
    defect = MachinaError(
        "Something went wrong in this server; report the error id to its operator."
    )
    return problem(defect, instance=instance, request_id=request_id, error_id=error_id)


def _note_defect(exception: Exception, error_id: str, path: str) -> None:
    """Logs a defect. A log that fails while it writes the trace takes no answer with it."""
    try:
        log.error("request.failed", error_id=error_id, path=path, exc_info=exception)
    except Exception as failure:  # noqa: BLE001  # whatever it is, the caller gets an answer
        logging.getLogger(__name__).error(
            "request.failed error_id=%s: %s, which could not be logged: %s",
            error_id,
            type(exception).__name__,
            type(failure).__name__,
        )


def _count_refusal(error: MachinaError, scope: Mapping[str, Any]) -> None:
    reason = REFUSALS.get(error.code)
    if reason is not None:
        scope["state"]["resources"].metrics.streams.refused.labels(reason).inc()


def _invalid(exception: RequestValidationError) -> Invalid:
    first = exception.errors()[0]
    place = [str(part) for part in first["loc"]]
    return Invalid(f"{' '.join(place)}: {first['msg']}", field=place[-1] if place else None)


def _problem_of_framework(
    exception: HTTPException, instance: str, request_id: str | None
) -> ProblemResponse:
    error = _FrameworkProblem(exception.status_code, str(exception.detail))
    response = problem(error, instance=instance, request_id=request_id)
    response.headers.update(exception.headers or {})
    return response


async def on_exception(request: Request, exception: Exception) -> Response:
    """The handler that the framework calls for the exceptions it would answer itself."""
    return problem_of(exception, request.scope)

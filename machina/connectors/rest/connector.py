"""The type `restapi`: calls the operation of an OpenAPI document that a command means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.rest.bodies import encode_body
from machina.connectors.rest.model import Operation
from machina.connectors.rest.openapi import Api
from machina.connectors.rest.replies import failures_of, read_reply
from machina.connectors.rest.requests import draft
from machina.connectors.rest.servers import base_url
from machina.connectors.rest.specs import Apis
from machina.egress import EgressClient, EgressRequest, is_ours
from machina.errors import ConnectorFailed

RunDirectory = Callable[[str], Path | None]
"""Where a run keeps its files, by its id; None: nowhere."""


class RestConnector:
    """Calls REST APIs. One per process; what documents compile to is kept in it."""

    def __init__(self, client: EgressClient, run_directory: RunDirectory) -> None:
        self._client = client
        self._run_directory = run_directory
        self._apis = Apis()

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        """Makes the request and reads its answer.

        Raises:
            ConnectorFailed: `command_unknown`, `egress_refused`, `connector_timeout` or
                `connector_failed`, with the HTTP status in `details` where there was one.
        """
        api = await self._apis.of(call.name, call.definition or {})
        operation = api.find(call.command)
        if operation is None:
            raise _unknown(api, call)
        with failures_of(call):
            return await self._send(call, api, operation)

    async def _send(self, call: ConnectorCall, api: Api, operation: Operation) -> ConnectorReply:
        made = draft(call, operation, api.schemes)
        headers = {name: value for name, value in made.headers.items() if not is_ours(name)}
        headers.setdefault("Accept", "application/json, */*;q=0.5")
        body = None
        if made.has_body:
            said = next((v for k, v in headers.items() if k.lower() == "content-type"), None)
            kinds = operation.content_types if said is None else (said,)
            directory = self._run_directory(call.run_id)
            body, kind = await encode_body(made.body, kinds, directory, call.where)
            headers = {k: v for k, v in headers.items() if k.lower() != "content-type"}
            headers["Content-Type"] = kind
        response = await self._client.send(
            EgressRequest(
                made.method,
                made.url(base_url(operation.server or api.server, api.server, call)),
                headers,
                body,
                total_seconds=call.timeout_seconds,
            )
        )
        return await read_reply(response, call)


def _unknown(api: Api, call: ConnectorCall) -> ConnectorFailed:
    near = api.near(call.command)
    remedy = f"did you mean {' or '.join(near)}?" if near else "its document has no operations."
    return ConnectorFailed(
        f"{call.where} calls '{call.command}', which connector '{call.name}' does not have; "
        f"{remedy}",
        code="command_unknown",
    )

"""The built-in connector `http`: a request to any URL, the command is the verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.rest.auth import Fields
from machina.connectors.rest.replies import failures_of, read_reply
from machina.connectors.rest.texts import encode_query, flat_pairs, json_of, text_of
from machina.egress import EgressClient, EgressRequest, is_ours
from machina.errors import ConnectorFailed

VERBS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_WITHOUT_BODY: Final = ("GET", "HEAD", "OPTIONS")


class HttpConnector:
    """Serves tasks that name the connector `http` where none of that name is installed."""

    def __init__(self, client: EgressClient) -> None:
        self._client = client

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        """Sends the inputs as JSON, or as the query of a GET; gives what `restapi` gives.

        Raises:
            ConnectorFailed: `command_unknown`, `egress_refused`, `connector_timeout` or
                `connector_failed`.
        """
        verb = call.command.strip().upper()
        if verb not in VERBS:
            raise ConnectorFailed(
                f"{call.where} calls '{call.command}' of the connector 'http', whose commands are "
                f"{', '.join(VERBS).lower()}.",
                code="command_unknown",
            )
        with failures_of(call):
            response = await self._client.send(_make_request(call, verb))
        return await read_reply(response, call)


def _make_request(call: ConnectorCall, verb: str) -> EgressRequest:
    inputs = dict(call.inputs)
    url = call.block.get("url")
    if not isinstance(url, str) or not url.strip():
        url = inputs.pop("url", None)
    if not isinstance(url, str) or not url.strip():
        raise ConnectorFailed(
            f"{call.where} calls the connector 'http' without a URL; give it as connector.url."
        )
    headers = {"Accept": "application/json, */*;q=0.5", **Fields(call.credentials).header_like()}
    headers = _over(headers, call.block.get("headers"))
    body = None
    if verb in _WITHOUT_BODY:
        url = _with_query(url.strip(), inputs)
    elif inputs:
        body = json_of(inputs)
        headers = _over({"Content-Type": "application/json"}, headers)
    return EgressRequest(verb, url.strip(), headers, body, total_seconds=call.timeout_seconds)


def _over(below: Mapping[str, str], headers: Any) -> dict[str, str]:
    """Headers over others; nulls, which are secrets nobody set, are left out."""
    found = dict(below)
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        text = text_of(value).strip() if value is not None else ""
        if text and not is_ours(str(name)):
            for known in [known for known in found if known.lower() == str(name).lower()]:
                del found[known]
            found[str(name)] = text
    return found


def _with_query(url: str, inputs: Mapping[str, Any]) -> str:
    pairs = [pair for name, value in inputs.items() for pair in flat_pairs(name, value)]
    if not pairs:
        return url
    plain = url.partition("#")[0]
    base, mark, query = plain.partition("?")
    replaced = {name for name, _ in pairs}
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] not in replaced]
    return f"{base}?{encode_query(kept + pairs)}" if mark else f"{base}?{encode_query(pairs)}"

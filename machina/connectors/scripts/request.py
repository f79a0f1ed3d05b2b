"""What a script is called with: one dictionary, as the format defines it (6.2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from machina.connectors.base import MODEL_COMMANDS, ConnectorCall
from machina.connectors.scripts.child.values import NotData, dump
from machina.errors import ConnectorFailed

_PLACES: Final = ("provider", "location")


@dataclass(frozen=True, slots=True)
class Script:
    """The implementation of a connector, ready to be sent to a child."""

    title: str
    source: str
    digest: str

    @classmethod
    def of(cls, call: ConnectorCall) -> Script:
        """The script of this call.

        Raises:
            ConnectorFailed: `connector_not_found`, or the connector has no script.
        """
        definition = call.definition
        if definition is None:
            raise ConnectorFailed(
                f"The connector '{call.name}' of {call.where} is not installed; install it, or "
                "correct its name.",
                code="connector_not_found",
            )
        source = definition.get("filecontent")
        if not isinstance(source, str) or not source.strip():
            raise ConnectorFailed(
                f"The connector '{call.name}' of {call.where} has no script; install its template "
                "again, with the file that its `filename` names.",
            )
        digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(call.name[:80], source, digest)

    def order(self, call: ConnectorCall) -> bytes:
        """The frame that asks a child to execute the call.

        Raises:
            ConnectorFailed: an input is no data.
        """
        try:
            return dump(
                {
                    "digest": self.digest,
                    "title": self.title,
                    "source": self.source,
                    "command": call.command,
                    "request": build_request(call),
                }
            )
        except NotData as error:
            raise ConnectorFailed(
                f"The inputs of {call.where} hold {error}; a script can be given texts, numbers, "
                "booleans, dates, lists and dictionaries.",
            ) from error


def build_request(call: ConnectorCall) -> dict[str, Any]:
    """The request dictionary: credentials in `headers`, inputs in `params`.

    `params` takes the model and its place from the connector block and the credentials for what the
    task did not set. No Redis and no stream channel: a script here has neither. What makes models
    reads all of it at the top of the dictionary.
    """
    params: dict[str, Any] = {}
    model = call.block.get("model_name", call.block.get("model"))
    if model is not None:
        params["model_name"] = params["model"] = model
    params.update({key: call.block[key] for key in _PLACES if call.block.get(key) is not None})
    params.update(call.inputs)
    for key, value in call.credentials.items():
        params.setdefault(key, value)
    headers = dict(call.credentials)
    request = {
        "headers": headers,
        "params": params,
        "path_attribute": dict(call.attributes),
        "connector_exec": call.command,
    }
    return {**params, **headers, **request} if call.command in MODEL_COMMANDS else request

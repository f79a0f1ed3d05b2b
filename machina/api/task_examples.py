"""What the documentation shows of the executors of connectors and prompts."""

from __future__ import annotations

from typing import Any, Final

from machina import errors
from machina.api.examples import RUN_ID, Responses, answer, refusals
from machina.api.problems import UnsupportedMediaType

_META: Final = {"run_id": RUN_ID, "execution_time": 0.8}
_START: Final = (
    errors.Unauthenticated,
    errors.NotFound,
    errors.IdempotencyMismatch,
    errors.TooLarge,
    UnsupportedMediaType,
    errors.Invalid,
    errors.Draining,
    errors.StoreDown,
    errors.QueueDown,
)

CONNECTOR_BODY: Final[dict[str, Any]] = {
    "command": "get-forecast",
    "inputs": {"city": "Lisbon"},
}
PROMPT_BODY: Final[dict[str, Any]] = {
    "inputs": {"question": "Will it rain?"},
    "connector": {"name": "machina-ai", "command": "invoke_prompt"},
}
CONNECTOR_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "content": {
            "application/json": {
                "schema": {"type": "object", "additionalProperties": True},
                "example": CONNECTOR_BODY,
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "command": {"type": "string"},
                        "inputs": {"type": "string", "description": "A JSON object."},
                        "file": {"type": "string", "format": "binary"},
                    },
                    "additionalProperties": True,
                },
                "example": {"command": "transcribe", "inputs": '{"language": "en"}'},
            },
        }
    }
}
CONNECTOR_ANSWERS: Final[Responses] = {
    200: answer(
        "What the command gave, of any type; ids and `status` for one that takes longer.",
        {"data": {"rain": True}, "message": "executed", "meta": _META, "status": True},
    ),
    **refusals(*_START, errors.ConnectorFailed, errors.SecretMissing, errors.DeadlineExceeded),
}
PROMPT_ANSWERS: Final[Responses] = {
    200: answer(
        "The answer: text, or an object where the prompt has a schema.",
        {"data": "It will.", "message": "executed", "meta": _META, "status": True},
    ),
    **refusals(*_START, errors.ModelFailed, errors.DeadlineExceeded),
}

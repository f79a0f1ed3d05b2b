"""What a script answered, as the engine understands it: a reply, or a failure with its code."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any, Final

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.redacting import redactor_for
from machina.connectors.scripts.child.values import unpack
from machina.errors import ConnectorFailed

MAX_MESSAGE: Final = 2_000
PACKAGES: Final = {
    "google.oauth2": "google-auth",
    "google.auth": "google-auth",
    "google.genai": "google-genai",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.speech": "google-cloud-speech",
    "google.cloud.workstations": "google-cloud-workstations",
    "azure": "azure-storage-blob",
    "azure.storage": "azure-storage-blob",
    "bs4": "beautifulsoup4",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "slack_sdk": "slack-sdk",
    "sports_skills": "sports-skills",
    "dateutil": "python-dateutil",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
}
"""Where a package is published under another name than it is imported by."""


def read_answer(call: ConnectorCall, told: Any, interpreter: str) -> ConnectorReply:
    """The reply of a child's frame.

    Raises:
        ConnectorFailed: the script failed, or what it returned is no answer.
    """
    if not isinstance(told, dict):
        raise _failed(call, "answered nonsense.")
    if told.get("kind") == "returned":
        try:
            return _read_envelope(call, unpack(told.get("value")))
        except (ValueError, RecursionError) as error:
            raise _failed(call, "answered nonsense.") from error
    raise _raised(call, told, interpreter)


def _read_envelope(call: ConnectorCall, value: Any) -> ConnectorReply:
    if not isinstance(value, dict):
        raise _failed(
            call,
            f"returned {_article(value)} instead of a dictionary with `status` and `data`.",
        )
    envelope = {key: item for key, item in value.items() if key != "data"}
    if value.get("status") is not True:
        raise _failed(call, f"reported a failure: {_why(value)}")
    return ConnectorReply(value.get("data"), envelope)


def _why(envelope: Mapping[str, Any]) -> str:
    """The text of a failure: `message`, else `error.message`, else `error`."""
    error = envelope.get("error")
    inner = error.get("message") if isinstance(error, dict) else error
    for text in (envelope.get("message"), inner):
        if isinstance(text, str) and text.strip():
            return text.strip()
    if "status" not in envelope:
        return "it returned no `status`; success is `status: True`, nothing else."
    return f"`status` was {str(envelope['status'])[:80]!r} and it gave no reason."


def _article(value: Any) -> str:
    names = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a boolean"}
    return names.get(type(value), "nothing" if value is None else "something else")


def _raised(call: ConnectorCall, told: Mapping[str, Any], interpreter: str) -> ConnectorFailed:
    message = str(told.get("message", ""))
    match told.get("reason"):
        case "import":
            return _package_missing(call, str(told.get("package") or ""), message, interpreter)
        case "command":
            listed = f"; it has {message}" if message else ""
            return ConnectorFailed(
                f"The connector '{call.name}' has no function '{call.command}'{listed}. Correct "
                f"the command of {call.where}.",
                code="command_unknown",
            )
        case "memory":
            return limit(call, "memory", "MACHINA_SCRIPT_MEMORY_BYTES")
        case "file":
            return limit(call, "bytes in one file", "MACHINA_SCRIPT_FILE_BYTES")
        case "size":
            return limit(call, "bytes in its answer", "MACHINA_SCRIPT_REPLY_BYTES")
        case "data":
            return _failed(call, f"returned {message}.")
    return _failed(call, f"raised {told.get('type', 'an exception')!s:.80}: {message}")


def _package_missing(
    call: ConnectorCall, name: str, message: str, interpreter: str
) -> ConnectorFailed:
    parts = name.split(".")
    known = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    published = next((PACKAGES[key] for key in known if key in PACKAGES), parts[0])
    what = f"the Python package '{published}'" if published else "a Python package"
    imported = f" (imported as {name})" if name and name != published else ""
    return ConnectorFailed(
        _redacted(
            call,
            f"The script of the connector '{call.name}' needs {what}{imported}, called by "
            f"{call.where}: {message}. Install it for {interpreter}, or name another interpreter "
            "with MACHINA_SCRIPT_PYTHON.",
        ),
        code="package_missing",
    )


def limit(call: ConnectorCall, what: str, setting: str) -> ConnectorFailed:
    """The failure of a script that took more than it may."""
    return ConnectorFailed(
        f"The script of the connector '{call.name}', called by {call.where}, took more {what} than "
        f"{setting} allows; let it take less, or raise the setting.",
        code="sandbox_limit",
    )


def timed_out(call: ConnectorCall, seconds: float) -> ConnectorFailed:
    """The failure of a script that was stopped by the clock."""
    return ConnectorFailed(
        f"The script of the connector '{call.name}', called by {call.where}, was stopped after "
        f"{seconds:g} s; let it do less, or raise MACHINA_SCRIPT_SECONDS.",
        code="connector_timeout",
    )


def died(call: ConnectorCall, code: int | None) -> ConnectorFailed:
    """The failure of a script whose process ended without an answer."""
    number = -(code or 0) if (code or 0) < 0 else (code or 0) - 128
    if number == signal.SIGXCPU or (number == signal.SIGKILL and code is not None):
        return limit(call, "processor time or memory", "MACHINA_SCRIPT_CPU_SECONDS")
    if code is None:
        return _failed(call, "broke off its connection.")
    try:
        how = signal.Signals(number).name
    except ValueError:
        return _failed(call, f"ended its process without an answer (exit code {code}).")
    return _failed(call, f"ended its process without an answer ({how}).")


def _failed(call: ConnectorCall, what: str) -> ConnectorFailed:
    return ConnectorFailed(
        _redacted(
            call, f"The script of the connector '{call.name}', called by {call.where}, {what}"
        )
    )


def _redacted(call: ConnectorCall, text: str) -> str:
    return redactor_for(call).text(text)[:MAX_MESSAGE]

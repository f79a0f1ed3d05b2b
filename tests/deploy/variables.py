"""Which environment variables the deployment's files may name."""

from __future__ import annotations

import re
from typing import Final

from machina.settings import Settings

PASSWORDS: Final = frozenset(("REDIS_PASSWORD", "MONGO_PASSWORD", "MONGO_ROOT_PASSWORD"))
"""Of the services in compose.yaml; described in its head and in docs/operations.md."""
SETTINGS: Final = {
    str(field.validation_alias): name for name, field in Settings.model_fields.items()
}
"""Every variable of ours and the field it sets."""
GUIDE: Final = (
    "REDIS_URL",
    "REDIS_PUBSUB_URL",
    "MONGODB_URL",
    "GUNICORN_WORKERS",
    "MAX_CONCURRENT_STREAMS",
    "STREAM_TIMEOUT_SECONDS",
    "CIRCUIT_BREAKER_THRESHOLD",
    "LOG_LEVEL",
    "SCHEDULERS",
    "MACHINA_CLIENT_VERSION",
)
_OURS: Final = re.compile(
    r"\b(?:MACHINA|REDIS|MONGODB|MONGO|GUNICORN|OPENAI|MAX|STREAM|CIRCUIT)_[A-Z0-9_]*[A-Z0-9]\b(?!_?…)"
)


def unknown_variables(text: str, *, besides: frozenset[str] = frozenset()) -> set[str]:
    """Names in a text that look like settings of ours and are none."""
    return set(_OURS.findall(text)) - SETTINGS.keys() - PASSWORDS - besides

"""The way out: address checks and the guarded HTTP client of connectors and downloads."""

from machina.egress.client import EgressClient
from machina.egress.headers import is_ours
from machina.egress.messages import EgressLimits, EgressRequest, EgressResponse
from machina.egress.policy import EgressPolicy

__all__ = [
    "EgressClient",
    "EgressLimits",
    "EgressPolicy",
    "EgressRequest",
    "EgressResponse",
    "is_ours",
]

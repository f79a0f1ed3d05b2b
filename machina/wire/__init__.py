"""Encoders: log entries to the bytes of one protocol. `negotiate` chooses by format or `Accept`."""

from machina.wire.base import Encoder
from machina.wire.ndjson import NDJSONEncoder
from machina.wire.negotiation import FORMATS, negotiate
from machina.wire.sse import SSEEncoder

__all__ = ["FORMATS", "Encoder", "NDJSONEncoder", "SSEEncoder", "negotiate"]

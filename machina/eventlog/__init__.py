"""The event log: one durable, ordered, fenced stream of entries per run."""

from machina.eventlog.answers import Answer, AppendFenced, AppendRefused, EventTooLarge
from machina.eventlog.clients import LogClient, make_log_client
from machina.eventlog.keys import LogKeys, make_log_keys
from machina.eventlog.reader import EventLogReader, LogState, Subscription
from machina.eventlog.signals import CancelListener, ring_cancel
from machina.eventlog.writer import AttemptLog, EventLogWriter

__all__ = [
    "Answer",
    "AppendFenced",
    "AppendRefused",
    "AttemptLog",
    "CancelListener",
    "EventLogReader",
    "EventLogWriter",
    "EventTooLarge",
    "LogClient",
    "LogKeys",
    "LogState",
    "Subscription",
    "make_log_client",
    "make_log_keys",
    "ring_cancel",
]

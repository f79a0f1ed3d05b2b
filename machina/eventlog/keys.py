"""Every Redis key and channel of the event log: its name, type and lifetime."""

from __future__ import annotations

from dataclasses import dataclass

from machina.ids import RunId


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The names under one deployment's prefix.

    The prefix also keeps deployments apart on the channels, since Pub/Sub ignores database numbers.
    The braces are literal: a cluster hashes what is between them, so one run stays on one slot.
    """

    prefix: str

    def events(self, run_id: RunId) -> str:
        """Stream: the log of a run. Lives until its expiry, set at the start and at the end."""
        return f"{self.prefix}:run:{{{run_id}}}:events"

    def fence(self, run_id: RunId) -> str:
        """String: the newest attempt that began to write. Expires together with the stream."""
        return f"{self.prefix}:run:{{{run_id}}}:attempt"

    @property
    def bells(self) -> str:
        """Channel: after each commit, the ids of the runs that got entries, 24 digits each."""
        return f"{self.prefix}:bells"

    @property
    def signals(self) -> str:
        """Channel: `cancel:<run id>`, for whoever executes the run."""
        return f"{self.prefix}:signals"


def make_log_keys(prefix: str) -> LogKeys:
    """The names of the deployment that `prefix` stands for."""
    return LogKeys(prefix)

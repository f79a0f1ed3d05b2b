"""Dramatiq's dispatch script on Redis, spoken by both halves of the queue.

One script does everything the queue needs (enqueue, fetch, acknowledge, …). The sender speaks it
through an asyncio client, without loading Dramatiq; a contract test compares the two.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final, NamedTuple

NEVER_DEAD: Final = 9_999_999_999_999
"""Milliseconds. Senders sign with a heartbeat in the far future: one that falls silent must not
count as a dead worker, because Dramatiq's maintenance answers those with a KEYS over everything."""
SENDER: Final = "sender"
"""The one broker id of all senders: they hold no messages, so nothing needs to tell them apart."""


class Script(NamedTuple):
    """A Lua script and the SHA-1 by which a Redis that knows it is asked to run it."""

    sha: str
    text: bytes


def load_dispatch_script() -> Script:
    """Reads the script of the installed Dramatiq; blocking.

    Raises:
        FileNotFoundError: Dramatiq is not installed, or no longer where this version is pinned to.
    """
    spec = importlib.util.find_spec("dramatiq")  # finds without importing
    if spec is None or spec.origin is None:
        raise FileNotFoundError("dramatiq is not installed")
    text = (Path(spec.origin).parent / "brokers" / "redis" / "dispatch.lua").read_bytes()
    return Script(hashlib.sha1(text, usedforsecurity=False).hexdigest(), text)


def enqueue_arguments(queue: str, message_id: str, data: bytes) -> tuple[str | int | bytes, ...]:
    """What the script is called with to enqueue one message.

    The timeouts and the unpack size in the middle only matter to commands that do maintenance.
    """
    return ("enqueue", NEVER_DEAD, queue, SENDER, 0, 0, 0, 1, message_id, data)

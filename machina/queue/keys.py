"""The Redis keys of the queue: Dramatiq's own, the doorbells, and who is woken to stop."""

from __future__ import annotations

from typing import Final

RUNG: Final = {"1": 0}
"""A bell is a sorted set of at most this one member: rung or not, however often, at any load."""


def namespace(prefix: str) -> str:
    """What every key of the queue begins with, for a deployment's prefix."""
    return f"{prefix}:queue"


def bell(namespace: str, queue: str) -> str:
    """The doorbell of a queue: rung by every sender, popped by one idle consumer."""
    return f"{namespace}:{queue}.bell"


def stop_bell(namespace: str, queue: str, broker_id: str) -> str:
    """Rung by a broker that stops, for the one consumer of its own that waits at this queue."""
    return f"{namespace}:{queue}.stop.{broker_id}"


def heartbeats(namespace: str) -> str:
    """Dramatiq's sorted set of brokers by their last sign of life, in milliseconds."""
    return f"{namespace}:__heartbeats__"


def unacknowledged(namespace: str, queue: str, broker_id: str) -> str:
    """Dramatiq's set of message ids that a broker fetched and has not acknowledged."""
    return f"{namespace}:__acks__.{broker_id}.{queue}"


def messages(namespace: str, queue: str) -> str:
    """Dramatiq's hash from message id to message."""
    return f"{namespace}:{queue}.msgs"

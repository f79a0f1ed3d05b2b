"""The words that sender and receiver of a message share: queues, their priorities, actor names."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Queue(StrEnum):
    """The deployment guide's four queues, most urgent first."""

    STREAMING = "streaming_priority"
    HIGH = "high_priority"
    NORMAL = "normal_priority"
    LOW = "low_priority"


PRIORITIES: Final[dict[Queue, int]] = {queue: rank for rank, queue in enumerate(Queue)}
"""Dramatiq's priority of each queue's actor: the lower number goes first within a process."""


def actor_name(queue: Queue) -> str:
    """The actor that executes the runs of a queue: one registration per queue keeps their order."""
    return f"execute_run_{queue}"

"""Where the two halves of the guide's architecture meet: the Redis and the names in it."""

from __future__ import annotations

import os

import redis

QUEUE = "streaming_priority"
TASK = "bench.reference.guide_tasks.stream_agent"


def redis_url() -> str:
    """`REDIS_URL`, as the guide names it."""
    return os.environ["REDIS_URL"]


def connect() -> redis.Redis:
    """A client without a limit of connections: each stream subscribes over one of its own."""
    pool = redis.ConnectionPool.from_url(redis_url(), max_connections=100_000, socket_timeout=None)
    return redis.Redis(connection_pool=pool)


def channel(task_id: str) -> str:
    """Where the events of a task are published."""
    return f"stream:{task_id}"

"""The guide's Celery side: a task per run, which publishes each event as it comes."""

from __future__ import annotations

from typing import Any

from celery import (  # type: ignore[import-not-found,import-untyped,unused-ignore]  # no stubs
    Celery,
)

from bench.reference.answer import paced, read_script
from bench.reference.places import QUEUE, TASK, channel, connect, redis_url

app: Any = Celery("guide", broker=redis_url())
app.conf.update(task_ignore_result=True, task_default_queue=QUEUE)
_redis = connect()


def stream_agent(task_id: str, body: dict[str, Any]) -> None:
    """Answers as the scripted model does, at its pace."""
    name = channel(task_id)
    for line in paced(read_script(body)):
        _redis.publish(name, line)


app.task(name=TASK)(stream_agent)

"""The guide's web side: subscribe, submit the task, relay what is published as NDJSON."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from celery import (  # type: ignore[import-not-found,import-untyped,unused-ignore]  # no stubs
    Celery,
)
from flask import (  # type: ignore[import-not-found,unused-ignore]  # only in the bench group
    Flask,
    Response,
    request,
)

from bench.reference.places import QUEUE, TASK, channel, connect, redis_url

celery: Any = Celery("guide", broker=redis_url())
_redis = connect()
END = b'"type":"done"'


def _relay(pubsub: Any) -> Iterator[bytes]:
    try:
        for message in pubsub.listen():
            if message["type"] == "message":
                line: bytes = message["data"]
                yield line
                if END in line[:40]:
                    return
    finally:
        pubsub.close()


def stream_agent(agent: str) -> Any:
    """Starts a task and answers with its events as they come."""
    task_id = uuid.uuid4().hex
    pubsub = _redis.pubsub()  # type: ignore[no-untyped-call]  # redis-py has no type for it
    pubsub.subscribe(channel(task_id))
    celery.send_task(TASK, (task_id, request.get_json()), task_id=task_id, queue=QUEUE)
    return Response(_relay(pubsub), mimetype="application/x-ndjson")


app: Any = Flask("guide")
app.add_url_rule("/agent/stream/<agent>", view_func=stream_agent, methods=["POST"])

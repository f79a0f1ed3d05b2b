"""The actors: one plain function, registered once per queue so that the queues keep their order.

An actor checks what the message carries, hands the run over to the event loop and returns, so the
message is acknowledged at once. That is safe because a message is only a wake-up: the record of the
run is the truth, and the lease guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from dramatiq import Actor, Broker

from machina.ids import RunId, is_object_id
from machina.queue.consumer import MessageDropped, NotHandedOver
from machina.queue.names import PRIORITIES, Queue, actor_name

log = structlog.get_logger(__name__)

OnMessage = Callable[[RunId], None]
"""Called in one of Dramatiq's threads; takes over the message's slot, or raises `NotHandedOver`."""


def register(broker: Broker, on_message: OnMessage, queues: Sequence[Queue] = tuple(Queue)) -> None:
    """Declares the actor of each queue on `broker`; a worker on it consumes exactly these queues.

    Whatever `on_message` raises, the message's slot comes back; `HandOverRefused` also puts the
    message back into its queue.
    """
    for queue in queues:
        Actor(
            _make_actor(queue, on_message),
            broker=broker,
            actor_name=actor_name(queue),
            queue_name=queue,
            priority=PRIORITIES[queue],
            options={"throws": NotHandedOver},
        )


def _make_actor(queue: Queue, on_message: OnMessage) -> Callable[..., None]:
    def execute_run(*args: object, **kwargs: object) -> None:
        match args:
            case (str(run_id),) if not kwargs and is_object_id(run_id):
                on_message(RunId(run_id))
            case _:
                log.warning("message.dropped", queue=str(queue), carried=repr((args, kwargs))[:200])
                raise MessageDropped

    return execute_run

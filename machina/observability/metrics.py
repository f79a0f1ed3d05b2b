"""The catalogue of metrics: what each is called, what it means, and why its buckets lie as they do.

Sums over all processes of a group are what is shown, so every gauge is one that may be summed. No
label holds anything that a caller chooses. docs/metrics.md says what to do when one moves.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.registry import Collector

from machina.observability.families import OPEN, Families, Family
from machina.observability.sharing import Share

KINDS: Final = ("agent", "workflow", "task", "skill")
OUTCOMES: Final = ("executed", "failed", "cancelled", "timeout")
QUEUES: Final = ("streaming_priority", "high_priority", "normal_priority", "low_priority")
LEFT: Final = ("drain", "log_lost", "store_lost", "fenced")
ANSWERS: Final = ("DUP", "GAP", "FENCED", "CLOSED", "LOST", "OUTBOX", "FULL")
REFUSALS: Final = {
    "too_many_streams": "gate",
    "breaker_open": "breaker",
    "too_many_viewers": "viewers",
    "draining": "draining",
    "queue_unavailable": "queue",
    "store_unavailable": "store",
    "log_unavailable": "log",
}
"""Codes of errors that send a caller away, and the reason each is counted under."""
OPENINGS: Final = ("start", "join", "resume", "replay")
ENDINGS: Final = ("done", "client_gone", "client_not_reading", "draining", "too_old", "broken")
BREAKERS: Final = ("agent_streaming",)
STATES: Final = ("closed", "open", "half-open")
PROCESSES: Final = ("api", "worker", "scheduler")
TICKS: Final = ("fired", "skipped", "missed", "failed")
CALLS: Final = (
    *("insert", "get", "find", "nearest", "count"),
    *("find_and_update", "update_many", "delete", "now"),
)
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""Methods that are counted by name; callers can invent any number of others."""

REDIS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
"""From a round trip on one machine to the longest that an outbox may wait."""
STORE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
"""From a lookup in the embedded store to the time limit of a call."""
FIRST_EVENT_SECONDS: Final = (
    *(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    *(30, 60, 300, 600),
)
"""From what this system adds when everything is near to the longest wait for a worker."""
RUN_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600)
"""From a scripted answer to the limit of a background run."""
ANSWER_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""From a health check to a synchronous call that waited for its run."""
LATE_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600, 86_400)
"""From the grain of a look at the schedules to the longest that is made up for."""
LAG_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2)
"""From the grain of a timer to what the watchdog reports."""


class RunMetrics:
    """Runs and their attempts, where they are executed, closed and repaired."""

    def __init__(self, make: Families) -> None:
        self.ended = make.counter(
            "machina_runs_ended_total",
            "Runs that ended, each once, by kind and outcome.",
            kind=KINDS,
            outcome=OUTCOMES,
        )
        self.seconds = make.histogram(
            "machina_run_seconds",
            "From a run's record to its end, the wait and all attempts included.",
            RUN_SECONDS,
            kind=KINDS,
        )
        self.queue_wait = make.histogram(
            "machina_queue_wait_seconds",
            "From a run's record to the first claim by a worker.",
            FIRST_EVENT_SECONDS,
            queue=QUEUES,
        )
        self.in_flight = make.gauge("machina_runs_in_flight", "Runs that workers execute now.")
        self.slots = make.gauge("machina_run_slots", "Runs that the live workers may execute.")
        self.attempts_left = make.counter(
            "machina_attempts_left_total",
            "Attempts that a worker left without an outcome: handed back, or fenced off.",
            reason=LEFT,
        )
        self.reclaimed = make.counter(
            "machina_attempts_reclaimed_total",
            "Attempts taken back from a worker that died, to be tried again.",
        )
        self.buried = make.counter(
            "machina_workers_buried_total", "Workers whose lease ran out while they held it."
        )
        self.repaired = make.counter(
            "machina_runs_repaired_total",
            "Ended runs whose log had no end, published again from their records.",
        )


class LogMetrics:
    """The event log, from the side that writes it and the side that reads it."""

    def __init__(self, make: Families) -> None:
        self.commit_seconds = make.histogram(
            "machina_commit_seconds",
            "Round trip of one commit: what all runs of a process had ready, in one call.",
            REDIS_SECONDS,
        )
        self.append_seconds = make.histogram(
            "machina_append_seconds",
            "From append to acknowledgement, for the entry at the head of each commit.",
            REDIS_SECONDS,
        )
        self.entries = make.counter(
            "machina_commit_entries_total", "Entries sent in commits that were answered."
        )
        self.commit_failures = make.counter(
            "machina_commit_failures_total",
            "Commits without an answer, or refused as a whole; they are sent again.",
        )
        self.answers = make.counter(
            "machina_append_answers_total",
            "Answers to an attempt's entries other than OK; OUTBOX and FULL: none came in time.",
            answer=ANSWERS,
        )
        self.outbox_bytes = make.gauge(
            "machina_outbox_bytes", "Events appended and not yet acknowledged."
        )
        self.holes = make.counter(
            "machina_log_holes_total",
            "Places where a reader found entries missing between others.",
        )


class StreamMetrics:
    """Streams, as their clients see them."""

    def __init__(self, make: Families) -> None:
        self.first_event_seconds = make.histogram(
            "machina_stream_first_event_seconds",
            "From a request that started a run to the first event on its stream.",
            FIRST_EVENT_SECONDS,
        )
        self.opened = make.counter(
            "machina_streams_opened_total",
            "Streams opened: started, joined while live, resumed after an event, or replayed.",
            kind=OPENINGS,
        )
        self.ended = make.counter(
            "machina_streams_ended_total", "Streams that ended, by what ended them.", ending=ENDINGS
        )
        self.open = make.gauge("machina_streams_open", "Streams that are being sent now.")
        self.viewers = make.gauge(
            "machina_viewers", "Requests that hold a viewer's place, starts included."
        )
        self.permits = make.gauge("machina_permits", "Started streams that the gates allow.")
        self.permits_in_use = make.gauge("machina_permits_in_use", "Permits taken now.")
        self.refused = make.counter(
            "machina_requests_refused_total",
            "Requests sent away with 429 or 503 before an answer began, by what refused them.",
            reason=tuple(REFUSALS.values()),
        )
        self.breaker = make.gauge(
            "machina_breaker_processes",
            "API processes that see the circuit breaker in this state.",
            breaker=BREAKERS,
            state=STATES,
        )


class ScheduleMetrics:
    """Due times of schedules, each counted by the process that dealt with it."""

    def __init__(self, make: Families) -> None:
        self.ticks = make.counter(
            "machina_schedule_ticks_total",
            "Due times of schedules, by what became of them.",
            outcome=TICKS,
        )
        self.late_seconds = make.histogram(
            "machina_schedule_late_seconds",
            "From a due time to the record of its run.",
            LATE_SECONDS,
        )


class ProcessMetrics:
    """The processes themselves and what they lean on."""

    def __init__(self, make: Families) -> None:
        self.alive = make.gauge("machina_processes", "Processes that report.", process=PROCESSES)
        self.requests = make.counter(
            "machina_http_requests_total",
            "Requests answered, by the route's template and the class of the status.",
            method=OPEN,
            route=OPEN,
            status=OPEN,
        )
        self.answer_seconds = make.histogram(
            "machina_http_answer_seconds",
            "From a request to the first byte of its answer.",
            ANSWER_SECONDS,
            route=OPEN,
        )
        self.redis_connections = make.gauge(
            "machina_redis_connections",
            "Connections to Redis, idle ones included.",
            process=OPEN,
            client=OPEN,
        )
        self.loop_lag = make.histogram(
            "machina_loop_lag_seconds",
            "How late the event loop was with a timer, twice a second.",
            LAG_SECONDS,
            process=PROCESSES,
        )
        self.restarts = make.counter(
            "machina_background_restarts_total",
            "Background tasks that ended and were started again.",
            task=OPEN,
        )
        self.store_seconds = make.histogram(
            "machina_store_call_seconds",
            "Calls of the store, failed ones included.",
            STORE_SECONDS,
            call=CALLS,
        )


class Metrics:
    """All metrics of one process. Not for use in other threads than the event loop's."""

    def __init__(self, registry: CollectorRegistry, share: Share | None) -> None:
        make = Families(registry)
        self.runs = RunMetrics(make)
        self.log = LogMetrics(make)
        self.streams = StreamMetrics(make)
        self.schedules = ScheduleMetrics(make)
        self.process = ProcessMetrics(make)
        self.catalogue: tuple[Family, ...] = tuple(make.made)
        self._share = share
        self.source: Collector = registry if share is None else share.collector
        """What is shown: this process's numbers, or those of its whole group."""

    def publish(self) -> None:
        """Lets the group see what this process has counted; nothing for a process without one."""
        if self._share is not None:
            self._share.publish()


def make_metrics(
    registry: CollectorRegistry | None = None, *, share: Share | None = None
) -> Metrics:
    """Every metric at zero, in a registry of its own by default.

    Args:
        share: The part this process has in its group's metrics, made before them.
    """
    # Else each has one more series, that says when its process started.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library
    return Metrics(registry or CollectorRegistry(), share)

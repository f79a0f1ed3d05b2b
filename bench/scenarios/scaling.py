"""Cost per event over streams, pace and processes, and where it ends."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.deployments import Deployment, Shape, running_guide, running_product
from bench.load import SATURATED, LoadClient, Measured, Steady, measure, running_client
from bench.result import Cell, Plot, Result, Scenario, Session, Table

STARTS_PER_SECOND = 80
LEAST_RAMP = 3.0
WINDOW = 8.0
HEAD = [
    "streams",
    "pieces/s each",
    "delivered/s",
    "of offered",
    "events per write",
    "API µs",
    "worker µs",
    "Redis µs",
    "all µs",
    "behind p99, ms",
]


@dataclass(slots=True)
class Sweep:
    """Points of one curve."""

    title: str
    points: list[tuple[int, float]]
    """Streams, and pieces per second of each."""
    measured: list[Measured] = field(default_factory=list)


BY_STREAMS = [(10, 1.0), (100, 1.0), (1000, 1.0), (4000, 1.0)]
SAME_TOTAL = [(40, 50.0), (200, 10.0), (1000, 2.0), (2000, 1.0), (4000, 0.5)]
BY_PACE = [(200, 1.0), (200, 5.0), (200, 10.0), (200, 20.0), (200, 50.0)]
KNEE = [(25, 50.0), (50, 50.0), (100, 50.0), (200, 50.0), (300, 50.0), (400, 50.0)]
GUIDE = [(25, 50.0), (50, 50.0), (100, 50.0), (200, 50.0)]
PROCESSES = [(1, 1), (2, 1), (1, 2), (2, 2)]
EACH = (200, 25.0)


def run(session: Session) -> Result:
    """One axis after the other; nothing else runs meanwhile but the idle guide."""
    result = Result()
    with running_client() as client:
        with ExitStack() as stack:
            product = stack.enter_context(running_product(session.home("machina")))
            sweeps = [
                Sweep("Streams, each 1 piece/s", BY_STREAMS),
                Sweep("Streams, 2 000 pieces/s in all", SAME_TOTAL),
                Sweep("Pieces per second of each of 200 streams", BY_PACE),
                Sweep("Streams of 50 pieces/s: the knee", KNEE),
            ]
            if session.quick:
                sweeps = [Sweep("Streams", [(2, 10.0), (4, 10.0)])]
            for sweep in sweeps:
                _walk(session, client, product, sweep)
                result.tables.append(Table(sweep.title, HEAD, _rows(sweep)))
            if not session.quick:
                guide = running_guide(session.home("guide"), pool="gevent", concurrency=1000)
                theirs = Sweep("The guide's architecture at the same load", GUIDE)
                _walk(session, client, stack.enter_context(guide), theirs)
                result.tables.append(Table(theirs.title, HEAD, _rows(theirs)))
                sweeps.append(theirs)
                result.plots += _plots(sweeps)
        measured = [one for sweep in sweeps for one in sweep.measured]
        measured += _processes(session, client, result)
    _conclude(result, measured)
    return result


def _steady(session: Session, streams: int, pace: float) -> Steady:
    if session.quick:
        return Steady(streams, pace, 0.3, 1.0)
    return Steady(streams, pace, max(LEAST_RAMP, streams / STARTS_PER_SECOND), WINDOW)


def _walk(session: Session, client: LoadClient, deployment: Deployment, sweep: Sweep) -> None:
    for streams, pace in sweep.points:
        session.say(f"{deployment.name}: {streams} streams × {pace:g}/s")
        sweep.measured.append(measure(client, deployment, _steady(session, streams, pace)))


def _rows(sweep: Sweep) -> list[list[Cell]]:
    return [_row(one, pace) for one, (_, pace) in zip(sweep.measured, sweep.points, strict=True)]


def _row(one: Measured, pace: float) -> list[Cell]:
    return [
        one.streams,
        f"{pace:g}",
        round(one.delivered),
        f"{one.delivered / one.offered:.0%}",
        round(one.events / max(one.writes, 1), 1),
        *(round(one.cost(part), 1) for part in ("api", "worker", "redis")),
        round(one.cost(), 1),
        round(one.lag_ms.p99, 1),
    ]


def _processes(session: Session, client: LoadClient, result: Result) -> list[Measured]:
    rows: list[list[Cell]] = []
    measured = []
    streams, pace = (4, 10.0) if session.quick else EACH
    for apis, workers in PROCESSES[-1:] if session.quick else PROCESSES:
        home = session.home(f"machina-{apis}-{workers}")
        with running_product(home, Shape(apis, workers)) as deployment:
            session.say(f"{apis} API, {workers} workers")
            one = measure(client, deployment, _steady(session, streams, pace))
        measured.append(one)
        rows.append([f"{apis} API, {workers} worker", *_row(one, pace)])
    title = f"Processes, at {streams} streams × {pace:g}/s"
    result.tables.append(Table(title, ["processes", *HEAD], rows))
    return measured


def _plots(sweeps: list[Sweep]) -> list[Plot]:
    streams, total, by_pace, knee, guide = sweeps

    def costs(sweep: Sweep, *, by_pace: bool = False) -> list[tuple[float, float]]:
        pairs = zip(sweep.measured, sweep.points, strict=True)
        return [(pace if by_pace else one.streams, one.cost()) for one, (_, pace) in pairs]

    def delivered(sweep: Sweep) -> list[tuple[float, float]]:
        return [(one.offered, one.delivered) for one in sweep.measured]

    offered = [(one.offered, one.offered) for one in knee.measured]
    return [
        Plot(
            "cost-by-streams",
            "CPU per delivered event over streams",
            "streams",
            "µs per event, all processes",
            {"1 piece/s each": costs(streams), "2 000 pieces/s in all": costs(total)},
            logarithmic=True,
        ),
        Plot(
            "cost-by-pace",
            "CPU per delivered event over pace, 200 streams",
            "pieces/s of each stream",
            "µs per event, all processes",
            {"machina": costs(by_pace, by_pace=True)},
        ),
        Plot(
            "knee",
            "Delivered over offered, streams of 50 pieces/s",
            "offered, pieces/s",
            "delivered, events/s",
            {"machina": delivered(knee), "guide, gevent": delivered(guide), "offered": offered},
        ),
    ]


def _conclude(result: Result, measured: list[Measured]) -> None:
    result.checked.append(
        f"{sum(one.all_events for one in measured)} events of "
        f"{sum(one.streams for one in measured)} streams: none lost, repeated or out of order"
    )
    busiest = max(measured, key=lambda one: one.client_share)
    text = f"The load client used at most {busiest.client_share:.0%} of a core"
    where = f" ({busiest.name}, {busiest.streams} streams)"
    limit = "; it was a limit there." if busiest.client_share > SATURATED else "."
    result.notes.append(text + where + limit)


SCENARIO = Scenario("scaling", "Scaling curves", run)

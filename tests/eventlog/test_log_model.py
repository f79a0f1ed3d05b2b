"""A model of attempts, losses and readers, checked step by step against the real script.

Writers claim rising attempts from a store; any of them may go on as a zombie, lose answers, or have
old calls executed again. Redis may lose its tail, a log or everything. Whatever the order: readers
see no gap, no duplicate and no change of mind, one end, and nothing after it but a repair; and what
was acknowledged is there unless Redis was made to lose it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from machina.eventlog.answers import Answer
from machina.eventlog.keys import make_log_keys
from machina.eventlog.script import Batch, Verdict, load_source, make_call, parse_answers
from machina.ids import RunId
from tests.services import RedisServer

KEYS = make_log_keys("model")
RUN_NUMBERS = itertools.count(1)
LIVE_MS, RETENTION_MS = 600_000, 60_000

Id = tuple[int, int]


@dataclass(frozen=True)
class Line:
    """One entry as it is in the log."""

    id: Id
    data: bytes
    end: bool


@dataclass
class Writer:
    """One attempt: what it has said, and how far it knows that to be in the log."""

    attempt: int
    repair: bool = False
    said: list[bytes] = field(default_factory=list)
    ended: bool = False
    acknowledged: int = 0
    refused: Answer | None = None
    calls: list[Batch] = field(default_factory=list)


@dataclass
class Reader:
    """One client: everything it was ever shown."""

    seen: list[Line] = field(default_factory=list)

    @property
    def cursor(self) -> Id:
        return self.seen[-1].id if self.seen else (0, 0)


class LogMachine(RuleBasedStateMachine):
    """One run, from its first claim to its end."""

    client: ClassVar[redis.Redis]
    sha: ClassVar[str]
    answers: ClassVar[Counter[Answer]]

    def __init__(self) -> None:
        super().__init__()
        self.run = RunId(f"{next(RUN_NUMBERS):024x}")
        self.events, self.fence = KEYS.events(self.run), KEYS.fence(self.run)
        self.writers: list[Writer] = []
        self.readers = [Reader(), Reader()]
        self.attempt = 0
        self.decided_by: int | None = None
        self.known: dict[Id, bytes] = {}
        self.lost: set[Id] = set()
        self.lossy_since = 0
        """The newest attempt that any injected loss may have hit."""
        self.log: list[Line] = []
        """What Redis holds, read again after every change."""

    # What the store and the writers do -----------------------------------------------------------

    @precondition(lambda self: self.decided_by is None)
    @rule(luck=st.integers(0, 2))
    def claim(self, luck: int) -> None:
        """A worker or a closer claims the run; whoever held it before is a zombie now."""
        if luck and self.writers and self.writers[-1].refused is None:
            return
        self.attempt += 1
        self.writers.append(Writer(self.attempt))

    @precondition(lambda self: self.writers)
    @rule(pick=st.integers(0, 9), count=st.integers(1, 4))
    def speak(self, pick: int, count: int) -> None:
        """An attempt says something and hears that it is in the log: the ordinary case."""
        self.say(pick, count)
        self.send(pick, 9, answered=True)

    @precondition(lambda self: self.writers)
    @rule(pick=st.integers(0, 9), count=st.integers(1, 4))
    def say(self, pick: int, count: int) -> None:
        """An attempt says something; it also may be a zombie."""
        writer = self._writer(pick)
        if not writer.ended and writer.refused is None:
            self._say(writer, count)

    @precondition(lambda self: self.writers)
    @rule()
    def decide(self) -> None:
        """The newest attempt ends the run in the store, and says so."""
        writer = self.writers[-1]
        if self.decided_by is None and writer.refused is None:
            self.decided_by = writer.attempt
            self._say(writer, 1)
            writer.ended = True

    @precondition(lambda self: self.decided_by is not None)
    @rule()
    def claim_late(self) -> None:
        """A defect: an attempt begins although the run has ended. It is no repair."""
        self.attempt += 1
        self.writers.append(Writer(self.attempt))
        self._say(self.writers[-1], 2)

    @precondition(lambda self: self.decided_by is not None)
    @rule()
    def claim_repair(self) -> None:
        """The run has ended in the store and somebody finds that the log does not show it."""
        if not self.log or not self.log[-1].end:
            self.attempt += 1
            writer = Writer(self.attempt, repair=True)
            self._say(writer, 3)
            writer.ended = True
            self.writers.append(writer)

    @precondition(lambda self: self.writers)
    @rule(pick=st.integers(0, 9), most=st.integers(1, 5), answered=st.booleans())
    def send(self, pick: int, most: int, answered: bool) -> None:
        """An attempt commits; without an answer it knows nothing and will send again."""
        writer = self._writer(pick)
        if writer.refused is None and len(writer.said) > writer.acknowledged:
            self._send(writer, most, answered=answered)

    @precondition(lambda self: self.writers)
    @rule(pick=st.integers(0, 9), part=st.integers(1, 2))
    def lose_an_answer(self, pick: int, part: int) -> None:
        """A commit's answer is lost; by the time it is sent again there is more to say."""
        self.say(pick, 3)
        self.send(pick, part, answered=False)
        self.send(pick, 9, answered=True)

    @precondition(lambda self: any(writer.calls for writer in self.writers))
    @rule(pick=st.integers(0, 9), call=st.integers(0, 99))
    def arrive_late(self, pick: int, call: int) -> None:
        """A call that was sent long ago is executed (again)."""
        writer = self._writer(pick)
        if writer.calls:
            self._execute(writer.calls[call % len(writer.calls)])

    # What Redis does -----------------------------------------------------------------------------

    @precondition(lambda self: self.log)
    @rule(count=st.integers(1, 4), restart=st.booleans(), luck=st.integers(0, 1))
    def lose_tail(self, count: int, restart: bool, luck: int) -> None:
        """The newest entries vanish: with a restart everything is as it was; else by hand."""
        if luck:
            return
        gone = self.log[-count:]
        self._note_loss(gone)
        if restart:
            self._rebuild(self.log[:-count])
        else:
            self.client.xdel(self.events, *[f"{a}-{s}" for a, s in (line.id for line in gone)])
        self._look()

    @precondition(lambda self: self.log)
    @rule(everything=st.booleans(), luck=st.integers(0, 3))
    def lose_all(self, everything: bool, luck: int) -> None:
        """The log is deleted, or the whole server is empty."""
        if luck:
            return
        self._note_loss(self.log)
        self.client.delete(*([self.events, self.fence] if everything else [self.events]))
        self._look()

    # What clients do -----------------------------------------------------------------------------

    @rule(pick=st.integers(0, 1), count=st.integers(1, 6))
    def read(self, pick: int, count: int) -> None:
        """A client reads on from its cursor."""
        reader = self.readers[pick]
        attempt, seq = reader.cursor
        reader.seen += self._range(f"({attempt}-{seq}", count)

    # What always holds ---------------------------------------------------------------------------

    @invariant()
    def readers_see_no_gap_and_no_duplicate(self) -> None:
        for reader in self.readers:
            check_order(reader.seen)

    @invariant()
    def an_id_always_stands_for_the_same_bytes(self) -> None:
        for line in [*self.log, *(line for reader in self.readers for line in reader.seen)]:
            assert self.known[line.id] == line.data

    @invariant()
    def the_log_is_dense_and_ends_once(self) -> None:
        check_order(self.log)
        for line, after in itertools.pairwise(self.log):
            if line.end:
                follower = self._by_attempt(after.id[0])
                assert follower.repair, "only a repair may follow an end"
                assert after.id[1] == 1

    @invariant()
    def what_was_acknowledged_is_there_unless_redis_lost_it(self) -> None:
        there = {line.id for line in self.log}
        for writer in self.writers:
            for seq in range(1, writer.acknowledged + 1):
                id = (writer.attempt, seq)
                assert id in there or id in self.lost

    @invariant()
    def everything_expires(self) -> None:
        if self.log:
            for name in (self.events, self.fence):
                assert self.client.pttl(name) != -1

    def teardown(self) -> None:
        """Whatever happened, the run can be brought to one end that every reader sees."""
        if self.decided_by is None:
            self.claim(luck=0)
            self.decide()
            self._send_all(self.writers[-1])
        for _ in range(3):
            self.claim_repair()
            self._send_all(self.writers[-1])
        assert self.log, "a repair makes a lost log anew"
        assert self.log[-1].end
        for reader in self.readers:
            attempt, seq = reader.cursor
            reader.seen += self._range(f"({attempt}-{seq}", 1_000)
            check_order(reader.seen)
            assert reader.seen[-1].end
            assert reader.seen[-1] == self.log[-1] or reader.cursor > self.log[-1].id
        self.client.delete(self.events, self.fence)

    # The parts -----------------------------------------------------------------------------------

    def _writer(self, pick: int) -> Writer:
        # The newest one most of the time, so that runs get somewhere.
        return self.writers[-1 - (pick % len(self.writers) if pick < 5 else 0)]

    def _by_attempt(self, attempt: int) -> Writer:
        return next(writer for writer in self.writers if writer.attempt == attempt)

    def _say(self, writer: Writer, count: int) -> None:
        for _ in range(count):
            seq = len(writer.said) + 1
            data = f"{writer.attempt}-{seq} of {self.run}".encode()
            writer.said.append(data)
            self.known[writer.attempt, seq] = data

    def _send(self, writer: Writer, most: int, *, answered: bool) -> None:
        first = writer.acknowledged + 1
        lines = writer.said[writer.acknowledged : writer.acknowledged + most]
        terminal = writer.ended and writer.acknowledged + len(lines) == len(writer.said)
        batch = Batch(
            self.run, writer.attempt, first, lines, terminal, writer.repair, LIVE_MS, RETENTION_MS
        )
        writer.calls.append(batch)
        unhurt = writer is self.writers[-1] and writer.attempt > self.lossy_since
        in_turn = writer.repair or self.decided_by in (None, writer.attempt)
        verdict = self._execute(batch)
        if unhurt and in_turn:
            assert verdict.answer.is_success, "nothing stands in the way of this attempt"
        if answered and verdict.answer.is_success:
            writer.acknowledged += len(lines)
            self.lost -= {(writer.attempt, first + i) for i in range(len(lines))}
        elif answered:
            writer.refused = verdict.answer

    def _send_all(self, writer: Writer) -> None:
        while writer.refused is None and writer.acknowledged < len(writer.said):
            self._send(writer, 2, answered=True)

    def _execute(self, batch: Batch) -> Verdict:
        before, fence = self.log, self._fence()
        names, arguments = make_call(KEYS, [batch])
        raw: Any = self.client.evalsha(self.sha, len(names), *names, *arguments)
        (verdict,) = parse_answers(raw)
        self.answers[verdict.answer] += 1
        self._look()
        added = self.log[len(before) :]
        assert self.log[: len(before)] == before, "what is written stays as it is"
        assert bool(added) == (verdict.answer is Answer.OK)
        newest = max([fence, *(line.id[0] for line in before)])
        assert all(line.id[0] == batch.attempt >= newest for line in added), "fenced"
        return verdict

    def _look(self) -> None:
        self.log = self._range("-", None)

    def _fence(self) -> int:
        fence: Any = self.client.get(self.fence)
        return int(fence or 0)

    def _range(self, start: str, count: int | None) -> list[Line]:
        raw: Any = self.client.xrange(self.events, min=start, count=count)
        return [Line(_id(name), fields[b"d"], b"end" in fields) for name, fields in raw]

    def _rebuild(self, log: list[Line]) -> None:
        """As after a restart with a shorter append-only file: stream and fence go together."""
        self.client.delete(self.events, self.fence)
        for line in log:
            fields: dict[Any, Any] = {"d": line.data} | ({"end": "1"} if line.end else {})
            self.client.xadd(self.events, fields, id=f"{line.id[0]}-{line.id[1]}")
        if log:
            self.client.pexpire(self.events, LIVE_MS)
            self.client.set(self.fence, log[-1].id[0], px=LIVE_MS)

    def _note_loss(self, lines: list[Line]) -> None:
        self.lost |= {line.id for line in lines}
        self.lossy_since = self.attempt


def _id(name: bytes) -> Id:
    attempt, seq = name.decode().split("-")
    return int(attempt), int(seq)


def check_order(lines: list[Line]) -> None:
    """Strictly rising ids, dense within an attempt, every attempt from its first."""
    attempt, seq = 0, 0
    for line in lines:
        assert line.id == (attempt, seq + 1) or (line.id[0] > attempt and line.id[1] == 1)
        attempt, seq = line.id


@pytest.fixture
def machine(redis_server: RedisServer) -> Iterator[type[LogMachine]]:
    with redis_server.connect() as client:

        class Machine(LogMachine):
            """A class of its own per test: what it counts must not be mixed."""

        Machine.answers = Counter()
        Machine.client = client
        Machine.sha = str(client.script_load(load_source()))
        yield Machine


def run_machine(machine: type[LogMachine], examples: int, *phases: Phase) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
        ),
    )


def test_no_gap_no_duplicate_one_end_when_everything_goes_wrong(machine: type[LogMachine]) -> None:
    run_machine(machine, 60, Phase.generate, Phase.shrink)
    script_answers = set(Answer) - {Answer.OUTBOX, Answer.FULL}
    assert {answer for answer in script_answers if machine.answers[answer] > 0} == script_answers


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        ("if attempt < newest then", "if false then"),
        ("if first + count - 1 <= there then return 'DUP' end", ""),
        ("if first > there + 1 or", "if"),
        ("if attempt == newest or first > 1 then return 'LOST' end", ""),
        ("if top[2][3] == 'end' and", "if false and"),
        ("math.max(0, there - first + 1)", "0"),
        ("redis.call('SET', fence, attempt, 'PX', life)", ""),
        ("      redis.call('PEXPIRE', events, life)", ""),
    ],
)
def test_the_model_notices_when_the_script_is_broken(
    machine: type[LogMachine], sound: str, broken: str
) -> None:
    source = load_source().decode()
    assert sound in source
    machine.sha = str(machine.client.script_load(source.replace(sound, broken)))
    with pytest.raises((AssertionError, redis.ResponseError)):
        run_machine(machine, 300, Phase.generate)

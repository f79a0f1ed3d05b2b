"""What one evaluation may use: steps, memory, depth and time, all paid before the work is done."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from machina.errors import BudgetExceeded

MAX_INTEGER_BITS = 16_384  # of any number that an expression makes

_STRIDE = 2_000  # steps between two looks at the clock


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one evaluation may use.

    A step is about one node of the expression evaluated once. `size` counts what is allocated
    in total, in bytes or characters, not what is alive; a result is held to it as well.
    """

    steps: int = 5_000_000
    size: int = 32 * 1024 * 1024
    depth: int = 64
    seconds: float = 1.0


DEFAULT_LIMITS = Limits()


class Budget:
    """Counts down while one expression is evaluated; raises BudgetExceeded when it is blown.

    A call into C cannot be interrupted. So every operation that can be large says what it will
    cost first, and is refused before it starts.
    """

    __slots__ = ("_checkpoint", "_deadline", "_depth", "_limits", "_size", "_steps")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._steps = limits.steps
        self._size = limits.size
        self._depth = limits.depth
        self._checkpoint = limits.steps - _STRIDE
        self._deadline = 0.0

    @property
    def size_left(self) -> int:
        """How much may still be allocated, in bytes or characters."""
        return self._size

    @property
    def size_limit(self) -> int:
        """How large a result may be, in bytes or characters."""
        return self._limits.size

    def work(self, steps: int) -> None:
        """Pays for that many steps, and looks at the clock now and then."""
        self._steps -= steps
        if self._steps < self._checkpoint:
            self._check()

    def take(self, size: int) -> None:
        """Pays for an allocation of that many bytes or characters."""
        self._size -= size
        if self._size < 0:
            raise BudgetExceeded(f"it builds more than {self._limits.size:,} bytes")

    def scan(self, length: int) -> None:
        """Pays for reading a text or a list once, without a copy; short ones are free."""
        if length > 255:
            self.work(length >> 8)

    def enter(self) -> None:
        """Goes one call deeper; pair it with `leave`."""
        self._depth -= 1
        if self._depth < 0:
            raise BudgetExceeded(f"its functions call each other over {self._limits.depth} deep")

    def leave(self) -> None:
        """Comes back from a call."""
        self._depth += 1

    def look_at_clock(self) -> None:
        """Raises when the time is over. The clock starts with the first look."""
        now = monotonic()
        if not self._deadline:
            self._deadline = now + self._limits.seconds
        elif now > self._deadline:
            raise BudgetExceeded(f"it takes longer than {self._limits.seconds:g} seconds")

    def _check(self) -> None:
        if self._steps < 0:
            raise BudgetExceeded(f"it takes more than {self._limits.steps:,} steps")
        self._checkpoint = max(0, self._steps - _STRIDE)
        self.look_at_clock()

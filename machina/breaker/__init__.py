"""The circuit breaker: refuses new streams while what they need is known to be broken."""

from machina.breaker.machine import Breaker, Snapshot, State, Ticket
from machina.breaker.shared import SharedBreaker

__all__ = ["Breaker", "SharedBreaker", "Snapshot", "State", "Ticket"]

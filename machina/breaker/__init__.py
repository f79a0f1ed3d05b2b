"""The circuit breaker: refuses new streams while what they need is known to be broken."""

from machina.breaker.machine import Breaker, Snapshot, State, Ticket

__all__ = ["Breaker", "Snapshot", "State", "Ticket"]

"""How a process tells what it does: logs, supervision of its background tasks, a watchdog."""

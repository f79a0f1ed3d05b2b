"""How a process tells what it does: logs, metrics, supervision of its tasks, a watchdog."""

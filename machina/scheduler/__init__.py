"""Starts agents and skills by frequency, interval and cron, each due time once in the fleet."""

from machina.scheduler.loop import Scheduler, make_policy, make_scheduler

__all__ = ["Scheduler", "make_policy", "make_scheduler"]

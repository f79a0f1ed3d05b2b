"""Breaks a real deployment by a seed while clients watch, then judges what they saw."""

"""Breaks a real deployment on purpose, by a seed, while clients watch; then judges what they saw."""

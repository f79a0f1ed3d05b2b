"""Machina runs AI agents and streams what they do, durably, to any HTTP client."""

__version__ = "0.1.0"

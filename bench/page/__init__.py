"""Writes the report: `docs/performance.md` and its plots."""

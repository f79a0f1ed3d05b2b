"""Measures the product beside its references, in one command: `python -m bench`."""

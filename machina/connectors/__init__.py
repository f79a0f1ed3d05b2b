"""Doors to the outside: connectors, and the providers of models behind them."""

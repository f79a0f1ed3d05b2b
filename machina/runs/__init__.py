"""Rules about runs: their record, who holds them, how they end, who may look."""

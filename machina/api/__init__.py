"""The API process: HTTP in front, the store, the queue and the event log behind."""

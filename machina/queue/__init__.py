"""The queue: a message is a wake-up that carries a run id and nothing else.

Sender and worker load different halves (`enqueue`, `broker`), so nothing is re-exported here.
"""

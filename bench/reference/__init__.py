"""What the product is measured against: a generator in the server, and the guide's architecture.

The architecture is the one that `deployment-guide.md` draws: Flask behind gunicorn with a gevent
worker, Celery tasks that publish events over Redis Pub/Sub, the web worker subscribing and relaying
them as NDJSON. It is built minimally and in its favour: its limit of ten streams is lifted, events
are encoded with the encoder the product uses, its Redis client has no limit of connections, and it
stores nothing, so that it can neither resume nor replay.
"""

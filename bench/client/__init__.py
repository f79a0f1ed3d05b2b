"""The load client: a process of its own, so that its CPU is nobody else's."""

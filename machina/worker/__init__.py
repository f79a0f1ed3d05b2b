"""The worker process: takes wake-ups from the queue and sees runs through, each as an attempt."""

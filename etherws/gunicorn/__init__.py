"""The ports of gunicorn's workers: one process has them, and each worker finds it."""

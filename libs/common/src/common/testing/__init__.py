"""Real parts for tests, started and stopped on demand."""

from common.testing.waiting import wait_until

__all__ = ["wait_until"]

"""Real parts for tests, started and stopped on demand."""

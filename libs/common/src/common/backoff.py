"""Back-off: how long to wait before the next try.

Delays grow by `factor` from `first` to `most` seconds. Each is stretched by up to `jitter` of itself, so that many clients which failed
together do not come back together. The chance comes in as an argument, so the same input gives the same delay.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of delays, in seconds. `jitter` 1.0 means up to twice the plain delay."""

    first: float = 0.8
    most: float = 30.0
    factor: float = 2.0
    jitter: float = 1.0

    def delay(self, attempt: int, chance: float) -> float:
        """The delay before try `attempt` (0 is the first retry); `chance` in [0, 1)."""
        if attempt < 0 or not 0 <= chance < 1:
            raise ValueError(f"attempt {attempt} must be at least 0 and chance {chance} in [0, 1)")
        growth = self.factor ** min(attempt, 64)
        return float(min(self.most, self.first * growth) * (1 + self.jitter * chance))

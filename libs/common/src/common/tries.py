"""Tries: how often something has failed in a row, and the wait before the next time.

    tries = Tries(BACKOFF)
    while True:
        try:
            await step()
            tries.done()
        except BusError as error:
            log.warning("step.delayed", reason=str(error), attempt=tries.failed)
            await tries.pause()

Each wait is longer than the one before, as the back-off has it.
"""

import asyncio
import random

from common.backoff import Backoff


class Tries:
    """The tries at one thing. `failed` counts those since it worked last."""

    def __init__(self, backoff: Backoff) -> None:
        self.failed = 0
        self._backoff = backoff

    def done(self) -> None:
        """It worked."""
        self.failed = 0

    def delay(self) -> float:
        """Counts a failure; how many seconds to wait after it."""
        self.failed += 1
        return self._backoff.delay(self.failed - 1, random.random())  # noqa: S311 jitter

    async def pause(self) -> None:
        """Counts a failure, and waits."""
        await asyncio.sleep(self.delay())

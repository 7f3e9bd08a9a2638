"""Publishing facts and alerts: in order, without ever holding up the work that they speak of.

`say` returns at once. While the bus is away the newest `most` are kept; older ones give way, and are counted and logged, since a fact is
a report and not the thing itself.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from common.backoff import Backoff
from common.bus import metrics
from common.bus.protocol import HEADER_MESSAGE_ID, Bus, BusError, TooLarge
from common.tries import Tries

_MOST: Final = 1000
_BACKOFF: Final = Backoff(first=0.1, most=10, factor=2, jitter=1)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Fact:
    subject: str
    headers: Mapping[str, str]
    body: bytes


class FactPublisher:
    """Says one thing after the other. `run` it in the application's TaskGroup; `flush` before the end."""

    def __init__(self, bus: Bus, *, most: int = _MOST, backoff: Backoff = _BACKOFF) -> None:
        self.lost = 0
        self._bus = bus
        self._backoff = backoff
        self._most = most
        self._waiting: deque[_Fact] = deque()
        self._losing = False
        self._news = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def room(self) -> int:
        """How many more facts can be kept now."""
        return self._most - len(self._waiting)

    def say(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """Queues a fact or an alert. Its `ce-id` keeps a repetition from being stored twice."""
        if len(self._waiting) >= self._most:
            self._drop(self._waiting.popleft(), "the bus is away and the queue is full")
        self._waiting.append(_Fact(subject, {HEADER_MESSAGE_ID: headers["ce-id"], **headers}, body))
        self._quiet.clear()
        self._news.set()

    async def flush(self) -> None:
        """Waits until everything is said."""
        await self._quiet.wait()

    async def run(self) -> None:
        """Publishes what is queued, until cancelled."""
        tries = Tries(self._backoff)
        while True:
            await self._news.wait()
            fact = self._waiting[0]
            try:
                await self._bus.publish(fact.subject, fact.body, fact.headers)
                tries.done()
            except TooLarge as error:
                self._drop(fact, str(error))
            except BusError as error:
                log.warning("fact.delayed", subject=fact.subject, reason=str(error), attempt=tries.failed)
                await tries.pause()
                continue
            if self._waiting and self._waiting[0] is fact:
                self._waiting.popleft()
            if not self._waiting:
                self._losing = False
                self._news.clear()
                self._quiet.set()

    def _drop(self, fact: _Fact, reason: str) -> None:
        self.lost += 1
        metrics.FACTS_LOST.inc()
        if not self._losing:
            log.error("fact.lost", subject=fact.subject, reason=reason, hint="one line for all of them until the queue is empty")
        self._losing = True

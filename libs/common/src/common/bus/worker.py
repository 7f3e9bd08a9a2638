"""Working off a queue: each job once if all goes well, again if not, and never lost.

A handler answers with a value: `Done`, `Retry` (with a delay, or None for one that grows with each attempt) or `Reject` (this job can
never be done). An exception is a bug of the handler: it is logged and the job is tried again, since the next version may know better.

A rejected job is published to the dead letters *before* it leaves the queue, for a job that leaves a work queue is gone. A job that was
tried `max_deliver` times stays in the stream, and the server says so once: the `Undertaker` reads it there and makes it a dead letter too.
Jobs are wake-ups, not orders: a handler reads the wanted state again, so that a job done twice does no harm.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from common.backoff import Backoff
from common.bus import metrics
from common.bus.protocol import ADVISORIES, HEADER_EXPECTED_LAST, HEADER_MESSAGE_ID, Bus, BusError, Job, Message, QueueConfig
from common.bus.streams import GIVEN_UP, JOBS
from common.contracts.subjects import dead_letter_subject

HEADER_REASON: Final = "seaway-reason"
HEADER_ATTEMPTS: Final = "seaway-attempts"

_RETRY: Final = Backoff(first=2, most=300, factor=2, jitter=0.5)
_REBIND: Final = Backoff(first=0.25, most=2, factor=2, jitter=1)
_NEVER_GIVE_UP: Final = -1
_LONGEST_REASON: Final = 1000
_OWN_HEADERS: Final = frozenset({HEADER_MESSAGE_ID, HEADER_EXPECTED_LAST, HEADER_REASON, HEADER_ATTEMPTS})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """The work is done."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now. `delay` in seconds; None grows with each attempt."""

    reason: str
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Never: the job itself is wrong."""

    reason: str


Outcome = Done | Retry | Reject
Handler = Callable[[Message, int], Awaitable[Outcome]]


class Worker:
    """Handles the jobs of one queue, `queue.concurrency` at a time."""

    def __init__(
        self, bus: Bus, queue: QueueConfig, handler: Handler, *, retry: Backoff = _RETRY, rebind: Backoff = _REBIND
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._handler = handler
        self._retry = retry
        self._rebind = rebind
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(queue.concurrency)

    def stop(self) -> None:
        """Takes no more jobs; `run` returns when those under way are finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Works until `stop`. The loss of the bus is a pause."""
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(self._take(group))
            await self._stopping.wait()
            taking.cancel()

    async def _take(self, group: asyncio.TaskGroup) -> None:
        attempt = 0
        while True:
            try:
                async with self._bus.work(self._queue) as jobs:
                    while True:
                        await self._slots.acquire()
                        job = await self._next(jobs)
                        attempt = 0
                        group.create_task(self._handle(job))
            except BusError as error:
                delay = self._rebind.delay(attempt, random.random())  # noqa: S311 jitter
                log.warning("worker.lost", queue=self._queue.name, reason=str(error), again_in=round(delay, 2))
                attempt += 1
                await asyncio.sleep(delay)

    async def _next(self, jobs: AsyncIterator[Job]) -> Job:
        try:
            return await anext(jobs)
        except BaseException:
            self._slots.release()
            raise

    async def _handle(self, job: Job) -> None:
        try:
            outcome = await self._perform(job)
            await self._settle(job, outcome)
            metrics.JOBS_ENDED.labels(self._queue.name, type(outcome).__name__).inc()
        except BusError as error:
            # The server gives the job out again when its time is over.
            log.warning("job.unsettled", queue=self._queue.name, subject=job.message.subject, reason=str(error))
        finally:
            self._slots.release()

    async def _perform(self, job: Job) -> Outcome:
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(self._keep(job))
            try:
                return await self._handler(job.message, job.attempt)
            except Exception as error:
                log.exception("job.failed", queue=self._queue.name, subject=job.message.subject, attempt=job.attempt)
                return Retry(f"the handler failed: {type(error).__name__}: {error}")
            finally:
                beat.cancel()

    async def _keep(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self._queue.ack_wait / 3)
            with suppress(BusError):
                await job.working()

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        match outcome:
            case Done():
                await job.done()
            case Retry(reason, delay) if not 0 < self._queue.max_deliver <= job.attempt:
                delay = self._retry.delay(job.attempt - 1, random.random()) if delay is None else delay  # noqa: S311 jitter
                log.info("job.retry", subject=job.message.subject, attempt=job.attempt, reason=reason, again_in=round(delay, 2))
                await job.retry(delay)
            case Retry(reason) | Reject(reason):
                await bury(self._bus, self._queue.stream, job.message, reason, job.attempt)
                await job.drop()


async def bury(bus: Bus, stream: str, job: Message, reason: str, attempts: int) -> None:
    """Publishes `job` to the dead letters. Saying it twice stores it once."""
    headers = {name: value for name, value in job.headers.items() if name not in _OWN_HEADERS}
    headers |= {
        HEADER_MESSAGE_ID: f"dead.{stream}.{job.sequence}.{job.time}",
        HEADER_REASON: reason[:_LONGEST_REASON],
        HEADER_ATTEMPTS: str(attempts),
    }
    await bus.publish(dead_letter_subject(job.subject), job.body, headers)
    log.error("job.buried", subject=job.subject, sequence=job.sequence, attempts=attempts, reason=reason)


def undertaker(bus: Bus) -> Worker:
    """The worker that makes dead letters of jobs whose workers died or never answered."""

    async def handle(notice: Message, _attempt: int) -> Outcome:
        try:
            advisory = json.loads(notice.body)
            stream, sequence, attempts = str(advisory["stream"]), int(advisory["stream_seq"]), int(advisory["deliveries"])
        except (ValueError, KeyError, TypeError):
            log.warning("undertaker.unreadable", subject=notice.subject)
            return Done()
        try:
            job = await bus.get(stream, sequence)
            if job is not None:
                await bury(bus, stream, job, f"given up after {attempts} attempts without an answer", attempts)
                await bus.delete(stream, sequence)
        except BusError as error:
            return Retry(str(error))
        return Done()

    queue = QueueConfig(GIVEN_UP.name, "undertaker", f"{ADVISORIES}.{JOBS.name}.>", max_deliver=_NEVER_GIVE_UP)
    return Worker(bus, queue, handle)

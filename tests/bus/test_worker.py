"""Working off a queue: once if all goes well, again if not, and never lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from common.backoff import Backoff
from common.bus.protocol import Bus, Message, QueueConfig, Stored, Unavailable
from common.bus.streams import DEAD_LETTERS, GIVEN_UP, JOBS, ensure_streams
from common.bus.worker import HEADER_ATTEMPTS, HEADER_REASON, Done, Outcome, Reject, Retry, Worker, undertaker
from common.testing import wait_until
from tests.bus.conftest import Backend
from tests.bus.helpers import Delegate, answered

BUILD = "jobs.v1.t.build.image"
QUEUE = QueueConfig("JOBS", "builder", "jobs.v1.t.build.>", ack_wait=30, max_deliver=4)
QUICK = Backoff(first=0.02, most=0.2, factor=2, jitter=0)


@pytest.fixture
async def jobs(backend: Backend, bus: Bus) -> Bus:
    await answered(lambda: ensure_streams(bus, backend.replicas, (JOBS, DEAD_LETTERS, GIVEN_UP)))
    return bus


class Handler:
    """Remembers what it was given and answers as told."""

    def __init__(self, *outcomes: Outcome, then: Outcome | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.under_way = 0
        self.most = 0
        self.during: Callable[[], Awaitable[object]] | None = None
        self._outcomes = list(outcomes)
        self._then = then or Done()

    async def __call__(self, message: Message, attempt: int) -> Outcome:
        self.seen.append((message.body.decode(), attempt))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.during is not None:
                await self.during()
            return self._outcomes.pop(0) if self._outcomes else self._then
        finally:
            self.under_way -= 1


@asynccontextmanager
async def working(bus: Any, handler: Handler, queue: QueueConfig = QUEUE) -> AsyncIterator[Worker]:
    worker = Worker(bus, queue, handler, retry=QUICK, rebind=QUICK)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
        worker.stop()
        await asyncio.wait_for(task, 10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def burying(bus: Bus) -> AsyncIterator[None]:
    worker = undertaker(bus)
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.stop()
        await task


async def left(bus: Bus, stream: str = "JOBS") -> int:
    return (await bus.stream_state(stream)).messages


async def emptied(bus: Bus, stream: str = "JOBS", *, but: int = 0) -> None:
    """What is settled goes from the stream soon after: a worker does not wait for the server to say so."""

    async def empty() -> bool:
        return await left(bus, stream) == but

    await wait_until(empty)


async def dead_letter(bus: Bus) -> Message | None:
    return await bus.get_last("DLQ", BUILD.replace("jobs.", "dlq."))


async def test_jobs_are_done_in_order_and_leave_the_queue(jobs: Bus) -> None:
    handler = Handler()
    for number in range(20):
        await jobs.publish(BUILD, str(number).encode(), {})
    async with working(jobs, handler):
        await emptied(jobs)
    assert handler.seen == [(str(number), 1) for number in range(20)]


async def test_only_jobs_of_the_own_domain_are_taken(jobs: Bus) -> None:
    handler = Handler()
    await jobs.publish("jobs.v1.t.ceph.provision", b"not ours", {})
    await jobs.publish(BUILD, b"ours", {})
    async with working(jobs, handler):
        await wait_until(lambda: handler.seen)
    assert handler.seen == [("ours", 1)]
    await emptied(jobs, but=1)


async def test_a_job_is_tried_again_after_a_delay_with_its_attempts_counted(jobs: Bus) -> None:
    handler = Handler(Retry("not yet", 0.05), Retry("not yet"))
    await jobs.publish(BUILD, b"x", {})
    async with working(jobs, handler):
        await emptied(jobs)
    assert handler.seen == [("x", 1), ("x", 2), ("x", 3)]


async def test_a_waiting_retry_does_not_hold_up_other_jobs(jobs: Bus) -> None:
    handler = Handler(Retry("much later", 60))
    await jobs.publish(BUILD, b"stuck", {})
    await jobs.publish(BUILD, b"next", {})
    async with working(jobs, handler):
        await wait_until(lambda: len(handler.seen) == 2)
    assert handler.seen == [("stuck", 1), ("next", 1)]


async def test_a_rejected_job_becomes_a_dead_letter_with_its_reason(jobs: Bus) -> None:
    handler = Handler(Reject("no Dockerfile in shop/web"))
    await jobs.publish(BUILD, b"x", {"ce-id": "7", "Nats-Msg-Id": "7"})
    async with working(jobs, handler):
        await emptied(jobs)
    letter = await dead_letter(jobs)
    assert letter is not None
    assert (letter.body, letter.headers["ce-id"]) == (b"x", "7")
    assert letter.headers[HEADER_REASON] == "no Dockerfile in shop/web"
    assert letter.headers[HEADER_ATTEMPTS] == "1"
    assert handler.seen == [("x", 1)]


async def test_a_rejected_job_stays_in_the_queue_until_its_dead_letter_is_stored(jobs: Bus) -> None:
    class NoDeadLetters(Delegate):
        refusing = True

        async def publish(self, *arguments: Any, **options: Any) -> Stored:
            if self.refusing:
                raise Unavailable("the dead letters are away")
            return await self._bus.publish(*arguments, **options)

    bus = NoDeadLetters(jobs)
    handler = Handler(then=Reject("wrong"))
    await jobs.publish(BUILD, b"x", {})
    async with working(bus, handler, replace(QUEUE, ack_wait=0.5)):
        await wait_until(lambda: len(handler.seen) == 2)
        assert await left(jobs) == 1
        bus.refusing = False
        await emptied(jobs)
    assert await dead_letter(jobs) is not None


async def test_a_job_that_never_succeeds_becomes_a_dead_letter_with_the_last_reason(jobs: Bus) -> None:
    handler = Handler(then=Retry("the registry is away", 0.01))
    await jobs.publish(BUILD, b"x", {})
    async with working(jobs, handler):
        await emptied(jobs)
    letter = await dead_letter(jobs)
    assert letter is not None
    assert letter.headers[HEADER_REASON] == "the registry is away"
    assert letter.headers[HEADER_ATTEMPTS] == "4"
    assert len(handler.seen) == 4


async def test_a_failing_handler_is_tried_again_and_others_go_on(jobs: Bus) -> None:
    class Failing(Handler):
        async def __call__(self, message: Message, attempt: int) -> Outcome:
            await super().__call__(message, attempt)
            if message.body == b"bad" and attempt == 1:
                raise ZeroDivisionError
            return Done()

    handler = Failing()
    await jobs.publish(BUILD, b"bad", {})
    await jobs.publish(BUILD, b"good", {})
    async with working(jobs, handler):
        await emptied(jobs)
    assert sorted(handler.seen) == [("bad", 1), ("bad", 2), ("good", 1)]


async def test_a_job_whose_workers_die_becomes_a_dead_letter(jobs: Bus) -> None:
    """The worker's life ends before its answer, as often as the queue allows."""
    queue = replace(QUEUE, ack_wait=0.3, max_deliver=2)
    await jobs.publish(BUILD, b"deadly", {})
    for attempt in (1, 2):
        async with jobs.work(queue) as taken:
            job = await asyncio.wait_for(anext(taken), 10)
            assert job.attempt == attempt
    handler = Handler()
    async with burying(jobs), working(jobs, handler, queue):
        await emptied(jobs)
        await emptied(jobs, "GIVEN_UP")
    letter = await dead_letter(jobs)
    assert letter is not None
    assert letter.body == b"deadly"
    assert letter.headers[HEADER_ATTEMPTS] == "2"
    assert "2 attempts" in letter.headers[HEADER_REASON]
    assert handler.seen == []


async def test_long_work_is_not_given_to_somebody_else(jobs: Bus) -> None:
    handler = Handler()

    async def work() -> None:
        await asyncio.sleep(1.6)  # the work itself, four times as long as the queue's patience

    handler.during = work
    await jobs.publish(BUILD, b"long", {})
    async with working(jobs, handler, replace(QUEUE, ack_wait=0.4, concurrency=4)):
        await emptied(jobs)
    assert handler.seen == [("long", 1)]


async def test_no_more_jobs_are_under_way_than_allowed(jobs: Bus) -> None:
    handler = Handler()
    go = asyncio.Event()
    handler.during = go.wait
    for number in range(10):
        await jobs.publish(BUILD, str(number).encode(), {})
    async with working(jobs, handler, replace(QUEUE, concurrency=3)):
        await wait_until(lambda: handler.under_way == 3)
        go.set()
        await emptied(jobs)
    assert handler.most == 3


async def test_a_stopping_worker_finishes_what_it_began_and_takes_nothing_new(jobs: Bus) -> None:
    handler = Handler()
    go = asyncio.Event()
    handler.during = go.wait
    await jobs.publish(BUILD, b"first", {})
    await jobs.publish(BUILD, b"second", {})
    async with working(jobs, handler) as worker:
        await wait_until(lambda: handler.under_way == 1)
        worker.stop()
        go.set()
    assert handler.seen == [("first", 1)]
    await emptied(jobs, but=1)


async def test_a_worker_goes_on_after_its_connection_was_lost(backend: Backend, jobs: Bus) -> None:
    handler = Handler()
    async with working(jobs, handler):
        await jobs.publish(BUILD, b"before", {})
        await emptied(jobs)
        await backend.interrupt()
        await wait_until(lambda: getattr(jobs, "connected", True))
        await jobs.publish(BUILD, b"after", {})
        await emptied(jobs)
    assert handler.seen == [("before", 1), ("after", 1)]


async def test_two_workers_share_a_queue(backend: Backend, jobs: Bus) -> None:
    one, other = Handler(), Handler()
    queue = replace(QUEUE, concurrency=3)
    go = asyncio.Event()
    one.during = other.during = go.wait
    for number in range(6):
        await jobs.publish(BUILD, str(number).encode(), {})
    async with working(jobs, one, queue), working(await backend.connect("other"), other, queue):
        await wait_until(lambda: one.under_way == other.under_way == 3)
        go.set()
        await emptied(jobs)
    assert sorted(one.seen + other.seen) == [(str(number), 1) for number in range(6)]

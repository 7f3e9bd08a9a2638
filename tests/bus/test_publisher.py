"""Writing the compacted log: what is stored in the end, whatever gets lost, refused or overtaken on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from common.backoff import Backoff
from common.bus.memory import MemoryBroker
from common.bus.protocol import Bus, Full, Stored, StreamMissing, TooLarge
from common.bus.publisher import Fenced, StatePublisher, StreamLost
from common.testing import wait_until
from tests.bus.conftest import Backend
from tests.bus.helpers import EVERYTHING, OBJECTS, Delegate, LosesAnswers, gone, headers, log_for, made, subject

QUICK = Backoff(first=0.01, most=0.1, factor=2, jitter=0)


@pytest.fixture
async def log(backend: Backend, bus: Bus) -> Bus:
    await made(bus, log_for(backend.replicas))
    return bus


@asynccontextmanager
async def publishing(bus: Any, **options: Any) -> AsyncIterator[StatePublisher]:
    """A publisher that has learned and runs. Its end must have been awaited, or be the test's own."""
    publisher = StatePublisher(bus, "LOG", EVERYTHING, name="test", backoff=QUICK, **options)
    await publisher.learn()
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ending(publisher: StatePublisher) -> BaseException:
    """What `run` raises."""
    with pytest.raises((Fenced, StreamLost)) as caught:
        await asyncio.wait_for(publisher.run(), 10)
    return caught.value


async def stored(bus: Bus, name: object) -> tuple[str, bytes] | None:
    last = await bus.get_last("LOG", subject(name))
    return (last.headers["ce-id"], last.body) if last else None


class Slow(Delegate):
    """Keeps publishes waiting, and counts how many were under way at once."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.open = asyncio.Event()
        self.under_way: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_in_all = 0
        self.written = 0

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        self.under_way[subject] += 1
        self.most[subject] = max(self.most[subject], self.under_way[subject])
        self.most_in_all = max(self.most_in_all, self.under_way.total())
        await self.open.wait()
        try:
            return await self._bus.publish(subject, body, headers, expected_last=expected_last)
        finally:
            self.under_way[subject] -= 1
            self.written += 1


async def test_everything_put_is_stored_and_a_flush_waits_for_it(log: Bus) -> None:
    async with publishing(log) as publisher:
        for number in range(300):
            publisher.put(subject(number), headers(number, 1), f"body {number}".encode())
        await publisher.flush()
        assert publisher.pending == 0
        assert (await log.stream_state("LOG")).messages == 300
        assert await stored(log, 299) == ("299.1", b"body 299")


async def test_versions_that_come_while_one_is_under_way_replace_each_other(log: Bus) -> None:
    slow = Slow(log)
    async with publishing(slow) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"1")
        await wait_until(slow.under_way.total)
        for version in range(2, 50):
            publisher.put(subject("a"), headers("u", version), str(version).encode())
        slow.open.set()
        await publisher.flush()
    assert slow.written == 2
    assert slow.most[subject("a")] == 1
    assert await stored(log, "a") == ("u.49", b"49")


async def test_writes_under_way_are_bounded(log: Bus) -> None:
    slow = Slow(log)
    async with publishing(slow) as publisher:
        for number in range(200):
            publisher.put(subject(number), headers(number, 1), b"")
        await wait_until(lambda: slow.under_way.total() == 64)
        slow.open.set()
        await publisher.flush()
    assert slow.most_in_all == 64
    assert set(slow.most.values()) == {1}


async def test_an_unchanged_object_is_not_written_again_even_after_a_restart(log: Bus) -> None:
    for _ in range(2):
        async with publishing(log) as publisher:
            publisher.put(subject("a"), headers("u", 1, "same"), b"x")
            await publisher.flush()
            publisher.put(subject("a"), headers("u", 2, "same"), b"x")
            await publisher.flush()
    assert (await log.stream_state("LOG")).last_sequence == 1


async def test_the_same_content_of_another_object_is_written(log: Bus) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("old", 1, "same"), b"x")
        await publisher.flush()
        publisher.put(subject("a"), headers("new", 2, "same"), b"x")
        await publisher.flush()
    assert await stored(log, "a") == ("new.2", b"x")


async def test_a_deleted_object_becomes_a_tombstone_and_can_come_back(log: Bus) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"x")
        await publisher.flush()
        publisher.remove(subject("a"), gone("u", 1))
        await publisher.flush()
        last = await log.get_last("LOG", subject("a"))
        assert last is not None
        assert last.gone
        assert last.body == b""
        assert last.headers["Nats-TTL"] == "3600"
    async with publishing(log) as publisher:
        assert publisher.known[subject("a")].gone
        publisher.remove(subject("a"), gone("u", 1))
        publisher.put(subject("b"), headers("v", 2), b"y")
        publisher.put(subject("a"), headers("w", 3), b"back")
        await publisher.flush()
        assert await stored(log, "a") == ("w.3", b"back")


async def test_an_object_can_come_back_after_its_tombstone_expired(log: Bus) -> None:
    async with publishing(log, tombstone_ttl=1) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"x")
        await publisher.flush()
        publisher.remove(subject("a"), gone("u", 1))
        await publisher.flush()

        async def forgotten() -> bool:
            return await stored(log, "a") is None

        await wait_until(forgotten)
        publisher.put(subject("a"), headers("w", 3), b"back")
        await asyncio.wait_for(publisher.flush(), 10)
        assert await stored(log, "a") == ("w.3", b"back")


async def test_an_object_that_returns_to_an_old_version_is_written_although_its_id_was_used(log: Bus) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"x")
        await publisher.flush()
        publisher.remove(subject("a"), gone("u", 1))
        await publisher.flush()
        publisher.put(subject("a"), headers("u", 1), b"x")
        await asyncio.wait_for(publisher.flush(), 10)
        assert await stored(log, "a") == ("u.1", b"x")


async def test_a_new_projection_of_the_same_version_is_written_although_its_id_was_used(log: Bus) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("u", 1, "old projection"), b"x")
        await publisher.flush()
        publisher.put(subject("a"), headers("u", 1, "new projection"), b"xy")
        await asyncio.wait_for(publisher.flush(), 10)
        assert await stored(log, "a") == ("u.1", b"xy")


@pytest.mark.parametrize("losses", [1, 3])
async def test_a_write_whose_answer_was_lost_is_not_stored_twice(log: Bus, losses: int) -> None:
    async with publishing(LosesAnswers(log, losses)) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"1")
        await asyncio.wait_for(publisher.flush(), 10)
        publisher.put(subject("a"), headers("u", 2), b"2")
        await asyncio.wait_for(publisher.flush(), 10)
    assert (await log.stream_state("LOG")).last_sequence == 2
    assert await stored(log, "a") == ("u.2", b"2")


async def test_a_newer_version_overtakes_one_whose_answer_was_lost(log: Bus) -> None:
    lossy = LosesAnswers(log, 1)
    async with publishing(lossy) as publisher:
        lossy.meanwhile = lambda: publisher.put(subject("a"), headers("u", 10), b"10")
        publisher.put(subject("a"), headers("u", 9), b"9")
        await asyncio.wait_for(publisher.flush(), 10)
    assert await stored(log, "a") == ("u.10", b"10")
    assert (await log.stream_state("LOG")).last_sequence == 2


async def test_a_tombstone_whose_answer_was_lost_is_stored_once(log: Bus) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"x")
        await publisher.flush()
    async with publishing(LosesAnswers(log, 1)) as publisher:
        publisher.remove(subject("a"), gone("u", 1))
        await asyncio.wait_for(publisher.flush(), 10)
    assert (await log.stream_state("LOG")).last_sequence == 2


async def test_a_watcher_that_lost_its_office_cannot_write_over_its_successor(backend: Backend, log: Bus) -> None:
    former = StatePublisher(log, "LOG", EVERYTHING, name="former", backoff=QUICK)
    await former.learn()
    async with publishing(await backend.connect("successor")) as successor:
        successor.put(subject("a"), headers("u", 10), b"new")
        await successor.flush()
    former.put(subject("a"), headers("u", 9), b"old")
    assert isinstance(await ending(former), Fenced)
    assert await stored(log, "a") == ("u.10", b"new")


async def test_a_watcher_that_lost_its_office_cannot_bring_a_deleted_object_back(backend: Backend, log: Bus) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("u", 9), b"x")
        await publisher.flush()
    former = StatePublisher(log, "LOG", EVERYTHING, name="former", backoff=QUICK)
    await former.learn()
    async with publishing(await backend.connect("successor")) as successor:
        successor.remove(subject("a"), gone("u", 9))
        await successor.flush()
    former.put(subject("a"), headers("u", 9, "another projection"), b"old")
    assert isinstance(await ending(former), Fenced)
    last = await log.get_last("LOG", subject("a"))
    assert last is not None
    assert last.gone


async def test_the_successor_overwrites_a_late_write_of_its_predecessor(backend: Backend, log: Bus) -> None:
    async with publishing(log) as successor:
        late = await backend.connect("former")
        await late.publish(subject("a"), b"late", headers("u", 99))
        successor.put(subject("a"), headers("u", 100), b"new")
        await asyncio.wait_for(successor.flush(), 10)
    assert await stored(log, "a") == ("u.100", b"new")


@pytest.mark.parametrize("made_anew", [False, True])
async def test_a_lost_stream_ends_the_publisher_even_if_it_has_nothing_to_write(
    backend: Backend, log: Bus, made_anew: bool
) -> None:
    publisher = StatePublisher(log, "LOG", EVERYTHING, name="test", check_every=0.05)
    await publisher.learn()
    await backend.lose("LOG")
    if made_anew:
        await made(log, log_for(backend.replicas))
    assert isinstance(await ending(publisher), StreamLost)


@pytest.mark.parametrize("made_anew", [False, True])
async def test_a_write_into_a_lost_stream_ends_the_publisher(backend: Backend, log: Bus, made_anew: bool) -> None:
    async with publishing(log) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"1")
        await publisher.flush()
    publisher = StatePublisher(log, "LOG", EVERYTHING, name="test", check_every=60)
    await publisher.learn()
    await backend.lose("LOG")
    if made_anew:
        await made(log, log_for(backend.replicas))
    publisher.put(subject("a"), headers("u", 2), b"2")
    assert isinstance(await ending(publisher), StreamLost)


async def test_learning_from_a_stream_that_is_not_there_is_refused(bus: Bus) -> None:
    with pytest.raises(StreamMissing):
        await StatePublisher(bus, "LOG", EVERYTHING, name="test").learn()


async def test_a_full_stream_blocks_with_the_reason_and_drops_nothing(backend: Backend, bus: Bus) -> None:
    await made(bus, log_for(backend.replicas, max_bytes=30_000))
    async with publishing(bus) as publisher:
        for number in range(50):
            publisher.put(subject(number), headers(number, 1), b"x" * 1000)
        await wait_until(lambda: publisher.blocked)
        assert publisher.blocked is not None
        assert "maximum bytes" in publisher.blocked.reason
        await made(bus, log_for(backend.replicas, max_bytes=1_000_000))
        await asyncio.wait_for(publisher.flush(), 20)
        assert publisher.pending == 0
        await wait_until(lambda: publisher.blocked is None)
        assert (await bus.stream_state("LOG")).messages == 50


async def test_a_body_above_the_limit_is_refused_at_once(log: Bus) -> None:
    async with publishing(log) as publisher:
        with pytest.raises(TooLarge, match="max_payload"):
            publisher.put(subject("a"), headers("u", 1), b"x" * (log.max_payload + 1))
        await publisher.flush()


async def test_only_the_named_subjects_are_learned(log: Bus) -> None:
    await log.publish("sync.v1.t.core.pods", b"", {"ce-id": "m"})
    await log.publish(subject("a"), b"", headers("u", 1))
    publisher = StatePublisher(log, "LOG", OBJECTS, name="test")
    assert set(await publisher.learn()) == {subject("a")}


async def test_a_missing_permission_blocks_until_it_is_given() -> None:
    broker = MemoryBroker()
    bus = broker.connect()
    await bus.ensure_stream(log_for(1))
    broker.forbid("state.v1.t.>")
    async with publishing(bus) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"1")
        await wait_until(lambda: publisher.blocked)
        assert publisher.blocked is not None
        assert "permissions violation" in publisher.blocked.reason
        broker.allow("state.v1.t.>")
        await asyncio.wait_for(publisher.flush(), 10)
    assert await stored(bus, "a") == ("u.1", b"1")


async def test_a_retry_takes_the_newest_version(log: Bus) -> None:
    class FullOnce(Delegate):
        def __init__(self, bus: Bus) -> None:
            super().__init__(bus)
            self.refusing = True

        async def publish(self, *arguments: Any, **options: Any) -> Stored:
            if self.refusing:
                raise Full("full")
            return await self._bus.publish(*arguments, **options)

    bus = FullOnce(log)
    async with publishing(bus) as publisher:
        publisher.put(subject("a"), headers("u", 1), b"1")
        await wait_until(lambda: publisher.blocked)
        publisher.put(subject("a"), headers("u", 2), b"2")
        bus.refusing = False
        await asyncio.wait_for(publisher.flush(), 10)
    assert (await log.stream_state("LOG")).last_sequence == 1
    assert await stored(log, "a") == ("u.2", b"2")

"""Following a compacted log while everything that can happen to it happens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from common.backoff import Backoff
from common.bus.follower import Follower, Update
from common.bus.protocol import Bus, Message
from common.snapshot import Replaced
from common.testing import wait_until
from tests.bus.conftest import Backend
from tests.bus.helpers import EVERYTHING, Gate, Interposed, MadeAnew, bury, contents, log_for, made, put, subject

QUICK = Backoff(first=0.02, most=0.2, factor=2, jitter=0)


class Copy:
    """What a consumer would hold: the updates, applied."""

    def __init__(self) -> None:
        self.objects: dict[str, Message] = {}
        self.updates: list[Update] = []

    def apply(self, update: Update) -> None:
        self.updates.append(update)
        if isinstance(update, Replaced):
            self.objects = {}
        for message in update.messages:
            if message.gone:
                self.objects.pop(message.subject, None)
            else:
                self.objects[message.subject] = message

    @property
    def contents(self) -> dict[str, str]:
        return contents(list(self.objects.values()))

    @property
    def snapshots(self) -> int:
        return sum(isinstance(update, Replaced) for update in self.updates)


@asynccontextmanager
async def copying(bus: Any, **options: Any) -> AsyncIterator[tuple[Copy, Follower]]:
    """A consumer that applies updates for as long as the block runs."""
    copy = Copy()

    async def consume(follower: Follower) -> None:
        async with follower:
            async for update in follower:
                copy.apply(update)

    follower = Follower(bus, "LOG", EVERYTHING, name="test", backoff=QUICK, **options)
    task = asyncio.create_task(consume(follower))
    try:
        yield copy, follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def log(backend: Backend, bus: Bus) -> Bus:
    await made(bus, log_for(backend.replicas))
    return bus


async def test_the_first_update_is_the_whole_state(log: Bus) -> None:
    for number in range(150):
        await put(log, number, f"v{number}")
    async with copying(log) as (copy, follower):
        await wait_until(lambda: copy.updates)
        assert isinstance(copy.updates[0], Replaced)
        assert copy.contents == {str(number): f"v{number}" for number in range(150)}
        assert [message.subject for message in copy.updates[0].messages] == sorted(copy.objects)
        assert follower.synced
        assert follower.missing == 0


async def test_an_empty_stream_is_complete_at_once(log: Bus) -> None:
    async with copying(log) as (copy, _):
        await wait_until(lambda: copy.updates)
        assert copy.updates == [Replaced(())]


async def test_changes_follow_in_order(log: Bus) -> None:
    await put(log, "a", "1")
    async with copying(log) as (copy, _):
        await wait_until(lambda: copy.updates)
        for version in range(2, 30):
            await put(log, "a", str(version))
        await bury(log, "a")
        await put(log, "b", "1")
        await wait_until(lambda: copy.contents == {"b": "1"})
        sequences = [message.sequence for update in copy.updates for message in update.messages]
        assert sequences == sorted(set(sequences))


async def test_a_replay_that_is_overtaken_by_updates_hides_no_object(log: Bus) -> None:
    """Each update moves its object behind any barrier that was known when the replay began."""
    for number in range(100):
        await put(log, number, "old")

    async def update_all() -> None:
        for number in range(100):
            await put(log, number, "new")

    async with copying(Interposed(log, update_all)) as (copy, _):
        await wait_until(lambda: copy.updates)
        assert len(copy.updates[0].messages) == 100
        await wait_until(lambda: copy.contents == {str(number): "new" for number in range(100)})
        assert copy.snapshots == 1


async def test_objects_deleted_during_the_replay_are_not_in_the_snapshot(log: Bus) -> None:
    for number in range(50):
        await put(log, number, "x")

    async def delete_some() -> None:
        for number in range(10):
            await bury(log, number)

    async with copying(Interposed(log, delete_some)) as (copy, _):
        await wait_until(lambda: copy.updates)
        assert len(copy.contents) == 40
        assert len(copy.updates[0].tombstones) == 10 if isinstance(copy.updates[0], Replaced) else False


async def test_a_subject_that_vanishes_during_the_replay_is_not_waited_for(log: Bus) -> None:
    for number in range(20):
        await put(log, number, "x")
    buried = await bury(log, "expiring")

    async def expire() -> None:
        await log.delete("LOG", buried)

    async with copying(Interposed(log, expire)) as (copy, _):
        await wait_until(lambda: copy.updates)
        assert len(copy.contents) == 20


async def test_a_subject_that_vanishes_is_not_waited_for_in_a_stream_that_is_never_quiet(log: Bus) -> None:
    for number in range(20):
        await put(log, number, "x")
    buried = await bury(log, "expiring")
    busy = True

    async def chatter() -> None:
        count = 0
        while busy:
            await put(log, "busy", str(count := count + 1))

    async def expire() -> None:
        await log.delete("LOG", buried)

    writer = asyncio.create_task(chatter())
    async with copying(Interposed(log, expire)) as (copy, _):
        await wait_until(lambda: copy.updates)
        assert len(copy.contents) == 21
    busy = False
    await writer


async def test_the_copy_ends_equal_to_the_stream_under_constant_writes(backend: Backend, log: Bus) -> None:
    writer_bus = await backend.connect("writer")
    final: dict[str, str] = {}

    async def write() -> None:
        for step in range(600):
            name = str(step * 7 % 60)
            if step % 5 == 4:
                await bury(writer_bus, name)
                final.pop(name, None)
            else:
                await put(writer_bus, name, str(step))
                final[name] = str(step)
            if step % 100 == 50:
                await backend.interrupt()
                await wait_until(lambda: getattr(writer_bus, "connected", True))

    async with copying(log) as (copy, _):
        await write()
        await wait_until(lambda: copy.contents == final)


async def test_a_short_interruption_is_resumed_without_a_new_snapshot(backend: Backend, log: Bus) -> None:
    await put(log, "a", "1")
    gate = Gate(log)
    async with copying(gate) as (copy, follower):
        await wait_until(lambda: copy.updates)
        gate.shut = True
        await backend.interrupt()
        await wait_until(lambda: not follower.connected)
        await wait_until(lambda: getattr(log, "connected", True))
        await put(log, "b", "1")
        await bury(log, "a")
        gate.shut = False
        await wait_until(lambda: copy.contents == {"b": "1"})
        assert copy.snapshots == 1


async def test_a_deletion_whose_tombstone_expired_unseen_is_found_by_a_new_snapshot(backend: Backend, log: Bus) -> None:
    await put(log, "kept", "1")
    await put(log, "deleted", "1")
    gate = Gate(log)
    async with copying(gate, tombstone_ttl=1.5) as (copy, follower):
        await wait_until(lambda: len(copy.contents) == 2)
        gate.shut = True
        await backend.interrupt()
        await wait_until(lambda: not follower.connected)
        await wait_until(lambda: getattr(log, "connected", True))
        await bury(log, "deleted", ttl=1)

        async def forgotten() -> bool:
            return subject("deleted") not in await log.subjects("LOG", EVERYTHING[0])

        await wait_until(forgotten)
        gate.shut = False
        await wait_until(lambda: copy.contents == {"kept": "1"})
        assert copy.snapshots == 2


async def test_a_stream_made_anew_replaces_the_copy(backend: Backend, log: Bus) -> None:
    for number in range(5):
        await put(log, f"old-{number}", "x")
    async with copying(log) as (copy, _):
        await wait_until(lambda: len(copy.contents) == 5)
        await backend.lose("LOG")
        await made(log, log_for(backend.replicas))
        await put(log, "new", "y")
        await wait_until(lambda: copy.contents == {"new": "y"})
        for number in range(10):
            await put(log, f"more-{number}", "z")
        await wait_until(lambda: len(copy.contents) == 11)


async def test_a_stream_made_anew_while_a_reader_is_opened_is_not_mixed_with_the_old_one(backend: Backend, log: Bus) -> None:
    for number in range(5):
        await put(log, number, "old")

    async def make_anew() -> None:
        await backend.lose("LOG")
        await made(log, log_for(backend.replicas))
        await put(log, 0, "new")

    async with copying(MadeAnew(log, make_anew)) as (copy, _):
        await wait_until(lambda: copy.contents == {"0": "new"})
        assert [contents(update.messages) for update in copy.updates] == [{"0": "new"}]


async def test_a_follower_waits_for_a_stream_that_does_not_exist_yet(backend: Backend, bus: Bus) -> None:
    async with copying(bus) as (copy, follower):
        await wait_until(lambda: follower._losses)
        assert not copy.updates
        await made(bus, log_for(backend.replicas))
        await wait_until(lambda: copy.updates)


async def test_what_is_already_there_comes_in_one_update(log: Bus) -> None:
    async with Follower(log, "LOG", EVERYTHING, name="slow", backoff=QUICK) as follower:
        assert await anext(aiter(follower)) == Replaced(())
        for number in range(200):
            await put(log, number, "x")
        received = 0
        updates = 0
        while received < 200:
            received += len((await anext(aiter(follower))).messages)
            updates += 1
        assert updates < 50


async def test_markers_are_told_apart_and_renewed_with_the_snapshot(backend: Backend, log: Bus) -> None:
    marker = "sync.v1.t.core.pods"
    async with copying(log) as (copy, follower):
        await wait_until(lambda: copy.updates)
        assert marker not in follower.markers
        await log.publish(marker, b"fresh", {})
        await wait_until(lambda: marker in follower.markers)
        assert follower.markers[marker].body == b"fresh"
        await backend.lose("LOG")
        await made(log, log_for(backend.replicas))
        await wait_until(lambda: copy.snapshots == 2)
        assert marker not in follower.markers


async def test_only_what_the_filter_names_is_followed(log: Bus) -> None:
    await put(log, "a", "1")
    await log.publish("sync.v1.t.core.pods", b"", {})
    async with Follower(log, "LOG", ["sync.v1.t.>"], name="markers") as follower:
        update = await anext(aiter(follower))
        assert [message.subject for message in update.messages] == ["sync.v1.t.core.pods"]


async def test_a_follower_of_headers_gets_no_bodies(log: Bus) -> None:
    await log.publish(subject("a"), b"body", {"ce-id": "x.1"})
    async with Follower(log, "LOG", EVERYTHING, name="headers", headers_only=True) as follower:
        [message] = (await anext(aiter(follower))).messages
        assert (message.body, message.headers["ce-id"]) == (b"", "x.1")

"""The bus: how fast the replica is written and read, and 10 000 objects from an API server to SYNCED in a follower.

The limit of writing is nats-py's own publishing to JetStream with as many writes in flight, without compare-and-set; the limit of reading
is a bare pull consumer of nats-py that looks at nothing. Both peers get the same messages; runs take turns, and the median of each counts.

The whole way is measured by a follower that was there before the watcher. The same way with an API server that holds nothing of ours is
what the start alone costs: the process, its connections, and its empty listings.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import nats
import nats.js.api

from common.bus.follower import Follower
from common.bus.nats import NatsBus, connect
from common.bus.publisher import IN_FLIGHT, StatePublisher
from common.bus.settings import BusSettings
from common.bus.streams import STATE, ensure_streams
from common.codec import Encoded, digest, encode
from common.contracts.objects import ConfigMap, EndpointSlice
from common.contracts.refs import ObjectRef, ResourceVersion
from common.contracts.state import ObjectApplied, applied_event
from common.contracts.subjects import state_filter, state_subject, sync_subject
from common.kube.session import KubeSession
from common.snapshot import Replaced
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.nats import NatsServer, nats_server
from common.testing.objects import config_map, endpoint_slice
from tests.bench.effort import Effort
from tests.bench.rows import Row, percentile
from tests.integration.watcher_world import watcher

FILTERS: Final = ("state.v1.>", "sync.v1.>")
GOAL: Final = "<= 5"  # seconds for 10 000 objects on two cores, with the start of the watcher and its listing
PACKAGE: Final = 500  # messages that a pull asks for at a time
_WRITERS: Final = 16

Message = tuple[str, Encoded]


@dataclass(frozen=True, slots=True)
class Way:
    """Seconds since the watcher was started, and those of each follower that joined later."""

    first: float  # until the first object was seen
    complete: float  # until every object and the marker was
    joins: tuple[float, ...]


async def bench(effort: Effort) -> list[Row]:
    """Writing, reading, and the whole way."""
    messages = [_message(number) for number in range(effort.objects)]
    ours, theirs, reading, raw_reading = [], [], [], []
    for _ in range(effort.runs):
        async with _empty_bus() as (server, _):
            theirs.append(await _raw_publishes(server, messages))
        async with _empty_bus() as (server, bus):
            ours.append(await _publishes(bus, messages))
            reading.append(await _snapshot(bus))
            raw_reading.append(await _raw_snapshot(server, len(messages)))
    return [
        _rate("bus, publish with compare-and-set", ours, "nats-py, publish", theirs, len(messages)),
        _rate("bus, snapshot", reading, "nats-py, bare pull", raw_reading, len(messages)),
        *await _whole_way(effort),
    ]


async def _publishes(bus: NatsBus, messages: Sequence[Message]) -> float:
    """Seconds in which a publisher stores all of it."""
    publisher = StatePublisher(bus, STATE.name, FILTERS, name="bench")
    await publisher.learn()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        began = time.monotonic()
        for subject, encoded in messages:
            publisher.put(subject, encoded.headers, encoded.body)
        await publisher.flush()
        took = time.monotonic() - began
        running.cancel()
    return took


async def _raw_publishes(server: NatsServer, messages: Sequence[Message]) -> float:
    """Seconds in which nats-py stores the same."""
    client = await nats.connect(server.url)
    stream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
    began = time.monotonic()
    for subject, encoded in messages:
        await stream.publish_async(subject, encoded.body, wait_stall=60, headers=dict(encoded.headers))
    await stream.publish_async_completed()
    took = time.monotonic() - began
    await client.close()
    return took


async def _snapshot(bus: NatsBus) -> float:
    """Seconds from opening a follower to its complete copy."""
    began = time.monotonic()
    async with Follower(bus, STATE.name, FILTERS, name="bench") as follower:
        async for update in follower:
            if isinstance(update, Replaced):
                return time.monotonic() - began
    raise AssertionError("a follower never ends by itself")


async def _raw_snapshot(server: NatsServer, count: int) -> float:
    """Seconds in which a bare pull consumer is handed as many messages."""
    client = await nats.connect(server.url)
    stream = client.jetstream()
    config = nats.js.api.ConsumerConfig(ack_policy=nats.js.api.AckPolicy.NONE, mem_storage=True)
    began = time.monotonic()
    puller = await stream.pull_subscribe("state.v1.>", stream=STATE.name, config=config)
    got = 0
    while got < count:
        got += len(await puller.fetch(min(PACKAGE, count - got), timeout=30))
    took = time.monotonic() - began
    await client.close()
    return took


async def _whole_way(effort: Effort) -> list[Row]:
    """A watcher of an API server without our objects, and of one that has them all."""
    async with kube_api() as api, KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube:
        empty = await _way(api, frozenset(), joins=0)
        subjects = await _fill(kube, effort.objects)
        full = await _way(api, subjects, joins=effort.joins)
    count = f"{effort.objects:,} objects"
    return [
        Row(name=f"{count}, start of the watcher to SYNCED", value=full.complete, unit="s", goal=GOAL),
        Row(name="no objects, start of the watcher to SYNCED", value=empty.complete, unit="s"),
        Row(name=f"{count}, start of the watcher to the first one", value=full.first, unit="s"),
        Row(name=f"{count}, the first one to SYNCED", value=full.complete - full.first, unit="s"),
        Row(name=f"{count}, a follower joins, p50", value=percentile(full.joins, 0.5), unit="s"),
    ]


async def _way(api: KubeApi, subjects: frozenset[str], *, joins: int) -> Way:
    """Starts a watcher on an empty bus, and looks until all of `subjects` are there."""
    async with AsyncExitStack() as stack:
        server, bus = await stack.enter_async_context(_empty_bus())
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="seaway-bench-watcher-")))
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            following = group.create_task(_follow(bus, subjects, opened))
            await opened
            began = time.monotonic()
            process = await stack.enter_async_context(watcher(directory, "bench", api, server))
        first, complete = following.result()
        await process.ready()
        joined = tuple([await _snapshot(bus) for _ in range(joins)])
    return Way(first - began, complete - began, joined)


async def _follow(bus: NatsBus, subjects: frozenset[str], opened: asyncio.Future[None]) -> tuple[float, float]:
    """When the first object was seen, and when a follower had all of them and the marker that says so."""
    filters = (state_filter("local", ConfigMap.resource), sync_subject("local", ConfigMap.resource))
    missing, first = set(subjects), None
    async with Follower(bus, STATE.name, filters, name="bench") as follower:
        async for update in follower:
            if not opened.done():
                opened.set_result(None)
            if update.messages and first is None:
                first = time.monotonic()
            missing.difference_update(message.subject for message in update.messages)
            if follower.markers and not missing and first is not None:
                return first, time.monotonic()
    raise AssertionError("a follower never ends by itself")


async def _fill(kube: KubeSession, count: int) -> frozenset[str]:
    """Makes that many ConfigMaps of about 600 bytes; their subjects."""
    gate = asyncio.Semaphore(_WRITERS)
    names = [f"object-{number:05}" for number in range(count)]

    async def make(name: str) -> None:
        async with gate:
            await kube.create(ConfigMap.resource, config_map(name, {"content": "x" * 600}), namespace="default")

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(make(name))
    return frozenset(state_subject("local", ObjectRef(ConfigMap.resource, "default", name)) for name in names)


@asynccontextmanager
async def _empty_bus() -> AsyncIterator[tuple[NatsServer, NatsBus]]:
    """A server of its own, whose streams hold nothing."""
    async with nats_server() as server:
        bus = await connect(BusSettings(url=server.url, patience=30))
        try:
            await ensure_streams(bus, 1)
            yield server, bus
        finally:
            await bus.close()


def _message(number: int) -> Message:
    """A slice of three endpoints, as a watcher publishes it."""
    addresses = [f"10.{number >> 16}.{number >> 8 & 255}.{at}" for at in range(3)]
    made = EndpointSlice.project(endpoint_slice(f"service-{number:05}", *addresses))
    applied = ObjectApplied(made, ResourceVersion(str(number + 1)), digest(made.to_data()))
    return state_subject("local", made.ref), encode(applied_event(applied, source="/bench", time="2026-01-01T00:00:00Z"))


def _rate(name: str, ours: Sequence[float], peer: str, theirs: Sequence[float], count: int) -> Row:
    """How many of `count` a second, by the median of what some runs took."""
    rate, peer_rate = (count / percentile(seconds, 0.5) for seconds in (ours, theirs))
    return Row(name=name, value=rate, unit="1/s", peer=peer, peer_value=peer_rate)

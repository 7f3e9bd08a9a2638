"""The bus: how fast the replica is written and read, and 10 000 objects from an API server to SYNCED in a follower.

The limit of writing is nats-py's own publishing to JetStream with as many writes in flight, without compare-and-set; the limit of reading
is a bare pull consumer of nats-py that looks at nothing. Both peers get the same messages from the same server.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
from common.contracts.refs import ResourceVersion
from common.contracts.state import ObjectApplied, applied_event
from common.contracts.subjects import state_filter, state_subject, sync_subject
from common.kube.session import KubeSession
from common.snapshot import Replaced
from common.testing.kubernetes import kube_api
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


async def bench(effort: Effort) -> list[Row]:
    """Writing, reading, and the whole way."""
    messages = [_message(number) for number in range(effort.objects)]
    async with nats_server() as server, _bus(server) as bus:
        await ensure_streams(bus, 1)
        theirs = await _raw_publishes(server, messages)
        await bus._api("STREAM.PURGE.STATE")
        ours = await _publishes(bus, messages)
        reading = [await _snapshot(bus) for _ in range(effort.joins)]
        raw_reading = [await _raw_snapshot(server, len(messages)) for _ in range(effort.joins)]
    count = len(messages)
    rows = [
        _rate("bus, publish with compare-and-set", count / ours, "nats-py, publish", count / theirs),
        _rate("bus, snapshot", count / percentile(reading, 0.5), "nats-py, bare pull", count / percentile(raw_reading, 0.5)),
    ]
    return rows + await _whole_way(effort)


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
    """An API server that is full, a watcher that starts, and a follower that waits; then followers that join."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube_api())
        server = await stack.enter_async_context(nats_server())
        kube = await stack.enter_async_context(KubeSession.from_kubeconfig(str(api.kubeconfig)))
        bus = await stack.enter_async_context(_bus(server))
        await ensure_streams(bus, 1)
        await _fill(kube, effort.objects)
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="seaway-bench-watcher-")))
        began = time.monotonic()
        process = await stack.enter_async_context(watcher(directory, "bench", api, server))
        listed = await _first_object(bus) - began
        took = await _complete(bus, effort.objects) - began
        await process.ready()
        joins = [await _snapshot(bus) for _ in range(effort.joins)]
    count = f"{effort.objects:,} objects"
    return [
        Row(name=f"{count}, start of the watcher to SYNCED", value=took, unit="s", goal=GOAL),
        Row(name=f"{count}, of that from the first one on the bus", value=took - listed, unit="s"),
        Row(name=f"{count}, a follower joins, p50", value=percentile(joins, 0.5), unit="s"),
    ]


async def _first_object(bus: NatsBus) -> float:
    """When the watcher has listed: the first of what it lists is on the bus."""
    async with Follower(bus, STATE.name, (state_filter("local", ConfigMap.resource),), name="bench") as follower:
        async for update in follower:
            if update.messages:
                return time.monotonic()
    raise AssertionError("a follower never ends by itself")


async def _complete(bus: NatsBus, count: int) -> float:
    """When a follower has every object, and the marker that says so."""
    filters = (state_filter("local", ConfigMap.resource), sync_subject("local", ConfigMap.resource))
    async with asyncio.timeout(120), Follower(bus, STATE.name, filters, name="bench") as follower:
        objects: set[str] = set()
        async for update in follower:
            objects |= {message.subject for message in update.messages if message.subject.startswith("state.")}
            if follower.markers and len(objects) >= count:
                return time.monotonic()
    raise AssertionError("a follower never ends by itself")


async def _fill(kube: KubeSession, count: int) -> None:
    """Makes that many ConfigMaps of about 600 bytes."""
    gate = asyncio.Semaphore(_WRITERS)

    async def make(number: int) -> None:
        async with gate:
            body = config_map(f"object-{number:05}", {"content": "x" * 600})
            await kube.create(ConfigMap.resource, body, namespace="default")

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(make(number))


@asynccontextmanager
async def _bus(server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await connect(BusSettings(url=server.url, patience=30))
    try:
        yield bus
    finally:
        await bus.close()


def _message(number: int) -> Message:
    """A slice of three endpoints, as a watcher publishes it."""
    addresses = [f"10.{number >> 16}.{number >> 8 & 255}.{at}" for at in range(3)]
    made = EndpointSlice.project(endpoint_slice(f"service-{number:05}", *addresses))
    applied = ObjectApplied(made, ResourceVersion(str(number + 1)), digest(made.to_data()))
    return state_subject("local", made.ref), encode(applied_event(applied, source="/bench", time="2026-01-01T00:00:00Z"))


def _rate(name: str, ours: float, peer: str, theirs: float) -> Row:
    return Row(name=name, value=ours, unit="1/s", peer=peer, peer_value=theirs)

"""The buses that the suite runs on: one in memory, one server, three servers. What is promised must hold on each of them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import pytest
import pytest_asyncio

from common.bus.memory import MemoryBroker
from common.bus.nats import NatsBus, connect
from common.bus.protocol import Bus
from common.bus.settings import BusSettings
from common.testing.nats import NatsCluster, nats_cluster, nats_server

HEARTBEAT = 0.5


class Backend(Protocol):
    """A bus under test, and what can be done to it."""

    replicas: int

    async def connect(self, name: str = "test") -> Bus:
        """A connection of its own, closed after the test."""
        ...

    async def interrupt(self) -> None:
        """Drops every connection for a moment."""
        ...

    async def lose(self, stream: str) -> None:
        """Removes a stream."""
        ...


class MemoryBackend:
    replicas = 1

    def __init__(self) -> None:
        self.broker = MemoryBroker(heartbeat=HEARTBEAT)

    async def connect(self, name: str = "test") -> Bus:
        return self.broker.connect()

    async def interrupt(self) -> None:
        self.broker.interrupt()

    async def lose(self, stream: str) -> None:
        self.broker.lose(stream)


class NatsBackend:
    def __init__(self, url: str, replicas: int) -> None:
        self.replicas = replicas
        self._url = url
        self._buses: list[NatsBus] = []

    async def connect(self, name: str = "test") -> NatsBus:
        settings = BusSettings(url=self._url, name=name, heartbeat=HEARTBEAT, request_timeout=3, reconnect_wait=0.05)
        bus = await connect(settings)
        self._buses.append(bus)
        return bus

    async def interrupt(self) -> None:
        for bus in self._buses:
            await bus._link._client.force_reconnect()

    async def lose(self, stream: str) -> None:
        await self._buses[0]._api(f"STREAM.DELETE.{stream}")

    async def close(self) -> None:
        """Leaves the servers as they were."""
        bus = await self.connect("cleaner")
        for stream in (await bus._api("STREAM.NAMES")).get("streams") or ():
            await bus._api(f"STREAM.DELETE.{stream}")
        for each in self._buses:
            await each.close()


@dataclass(frozen=True)
class Servers:
    """What a whole module shares: servers take longer to start than a test to run."""

    url: str
    replicas: int
    cluster: NatsCluster | None = None


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "one server", "three servers"])
async def servers(request: pytest.FixtureRequest) -> AsyncIterator[Servers | None]:
    if request.param == "memory":
        yield None
    elif request.param == "one server":
        async with nats_server() as server:
            yield Servers(server.url, 1)
    else:
        async with nats_cluster() as cluster:
            yield Servers(",".join(cluster.urls), 3, cluster)


@pytest.fixture
async def backend(servers: Servers | None) -> AsyncIterator[Backend]:
    if servers is None:
        yield MemoryBackend()
        return
    if servers.cluster is not None:
        await servers.cluster.ready()  # on a busy machine they lose sight of each other for a moment
    backend = NatsBackend(servers.url, servers.replicas)
    yield backend
    await backend.close()


@pytest.fixture
async def bus(backend: Backend) -> Bus:
    return await backend.connect()

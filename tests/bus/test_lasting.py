"""A bus for services that outlast it: what ends others is a pause for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.backoff import Backoff
from common.bus.lasting import LastingBus
from common.bus.protocol import Unavailable
from common.bus.settings import BusSettings
from common.testing import wait_until
from common.testing.nats import NatsCluster, nats_server
from tests.bus.helpers import log_for, made, put
from tests.bus.test_follower import copying


@asynccontextmanager
async def lasting(url: str) -> AsyncIterator[LastingBus]:
    settings = BusSettings(url=url, heartbeat=0.5, request_timeout=2, reconnect_wait=0.05, watch_interval=0.3)
    bus = LastingBus(settings, backoff=Backoff(first=0.05, most=0.2))
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_connection_closed_for_good_is_made_again_and_followers_go_on() -> None:
    async with nats_server() as server, lasting(server.url) as bus:
        with pytest.raises(Unavailable, match="no connection to the bus"):
            await bus.stream_state("LOG")
        await wait_until(lambda: bus.connected)
        await bus.ensure_stream(log_for(1))
        async with copying(bus) as (copy, _):
            await put(bus, "a", "1")
            await wait_until(lambda: copy.contents == {"a": "1"})
            first = bus._there
            await first._link._client._process_err("'unknown protocol operation'")
            await wait_until(lambda: bus.connected and bus._there is not first)
            await put(bus, "b", "2")
            await wait_until(lambda: copy.contents == {"a": "1", "b": "2"})


async def test_servers_without_a_leader_are_asked_again_until_they_have_one(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path, 3)
    try:
        await cluster.servers[0].launch()
        async with lasting(cluster.servers[0].url) as bus:
            await wait_until(lambda: "JetStream" in bus.why, within=30)
            assert not bus.connected
            for server in cluster.servers[1:]:
                await server.launch()
            await cluster.ready()
            await wait_until(lambda: bus.connected, within=30)
            await made(bus, log_for(1))
    finally:
        for server in cluster.servers:
            await server.kill()

"""A stand-by Service takes over, and gives back, without a failed request that could have been answered."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.objects import config_map, endpoint_slice, ingress, rule, service
from nginx_config_renderer.emergencies import Emergencies
from nginx_config_renderer.model import IngressKey
from tests.edge.fleet import Server, busy, fleet, well
from tests.edge.world import EdgeWorld, Raw, ask

HOST = "shop.example"
SHOP = IngressKey("default", "shop")


def shop(mode: str = "manual", **more: str) -> Raw:
    ours = {"emergency-service": "spare", "emergency-mode": mode} | more
    return ingress("shop", rule(HOST, "/", "web:80"), annotations={f"seaway.dev/{name}": value for name, value in ours.items()})


def switch(*, on: bool) -> Raw:
    return config_map("failover", {"default.shop": json.dumps({"reason": "drill"})} if on else {}, "seaway-edge")


@asynccontextmanager
async def watched(world: EdgeWorld) -> AsyncIterator[Emergencies]:
    """The watch over emergencies, while the block runs."""

    class Whom:
        def trip(self, key: IngressKey, reasons: Mapping[str, str]) -> None:
            world.applier.want(world.wanted.trip(key, reasons).entries)

    reports = Reports(FactPublisher(MemoryBus(MemoryBroker())), service="renderer", cluster="local", instance="one")
    watch = Emergencies(lambda: world.wanted.standings, Whom(), world.admin, reports, complete=lambda: True, look=0.05)
    running = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        running.cancel()


@asynccontextmanager
async def visited(world: EdgeWorld) -> AsyncIterator[Counter[str]]:
    """Requests, one after the other in several tasks, for as long as the block runs; who answered them, or with what."""
    seen: Counter[str] = Counter()

    async def visit() -> None:
        while True:
            seen[(await ask(world.port, HOST)).by] += 1

    visitors = [asyncio.create_task(visit()) for _ in range(4)]
    try:
        yield seen
    finally:
        for visitor in visitors:
            visitor.cancel()


@pytest.fixture
async def world(own: EdgeWorld) -> EdgeWorld:
    await own.put(service("web"), *await own.serve("web"), service("spare"), *await own.serve("spare"), shop())
    return own


async def test_an_operators_switch_under_load_loses_no_request(world: EdgeWorld) -> None:
    async with visited(world) as seen:
        for number in range(10):
            on = number % 2 == 0
            await world.put(switch(on=on))
            assert (await world.ask(HOST)).by == ("spare" if on else "web")
        await wait_until(lambda: min(seen["web"], seen["spare"]) > 10)
    assert set(seen) == {"web", "spare"}


async def test_a_backend_that_ends_gives_way_in_the_same_step_and_gets_its_requests_back(world: EdgeWorld) -> None:
    web = await world.serve("web")
    await world.put(shop("auto", **{"emergency-hold": "1"}), *web)
    async with watched(world), visited(world) as seen:
        await world.put(endpoint_slice("web", port=1))
        assert (await world.ask(HOST)).by == "spare"
        await wait_until(lambda: world.wanted.standings[SHOP].diverted)
        await world.put(*web)
        assert (await world.ask(HOST)).by == "spare"
        await wait_until(lambda: not world.wanted.standings[SHOP].diverted)
        await wait_until(lambda: world.applier.settled)
        assert (await world.ask(HOST)).by == "web"
    assert set(seen) == {"web", "spare"}


async def test_too_many_failures_switch_by_themselves_and_back_when_it_is_well_again(own: EdgeWorld) -> None:
    world = own
    failing = Server(busy)
    async with fleet(world, "web", failing):
        await world.put(service("spare"), *await world.serve("spare"))
        await world.put(shop("auto", **{"emergency-hold": "1", "emergency-window": "5", "emergency-threshold": "50"}))
        async with watched(world):

            async def spared() -> bool:
                return (await world.ask(HOST)).by == "spare"

            await wait_until(spared, within=20)
            (_, why), *_ = world.wanted.standings[SHOP].diverted
            assert "requests failed within" in why
            failing.behave = well
            await wait_until(lambda: not world.wanted.standings[SHOP].diverted, within=20)
            await world.settle()
            assert (await world.ask(HOST)).body == "ok"

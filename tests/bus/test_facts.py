"""Facts: said in order, never in the way, and never lost without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.backoff import Backoff
from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker
from common.bus.protocol import Bus, Start
from common.bus.streams import EVENTS, ensure_streams
from common.testing import wait_until
from tests.bus.conftest import Backend
from tests.bus.helpers import answered

APPLIED = "evt.v1.t.nginx.applied"
QUICK = Backoff(first=0.01, most=0.05, factor=2, jitter=0)


@pytest.fixture
async def events(backend: Backend, bus: Bus) -> Bus:
    await answered(lambda: ensure_streams(bus, backend.replicas, [EVENTS]))
    return bus


@asynccontextmanager
async def saying(bus: Bus, most: int = 1000) -> AsyncIterator[FactPublisher]:
    facts = FactPublisher(bus, most=most, backoff=QUICK)
    task = asyncio.create_task(facts.run())
    try:
        yield facts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def said(bus: Bus, count: int) -> list[str]:
    """That many facts, and whatever comes with them. A batch may be empty although more is on its way."""
    bodies: list[str] = []
    async with asyncio.timeout(10), bus.read("EVENTS", ["evt.v1.>"], Start(1), name="reader") as reader:
        while len(bodies) < count:
            bodies += [message.body.decode() for message in await reader.batch()]
        return [*bodies, *(message.body.decode() for message in await reader.batch())]


async def test_facts_are_stored_in_the_order_they_were_said(events: Bus) -> None:
    async with saying(events) as facts:
        for number in range(50):
            facts.say(APPLIED, {"ce-id": str(number)}, str(number).encode())
        await facts.flush()
    assert await said(events, 50) == [str(number) for number in range(50)]


async def test_a_fact_said_twice_is_stored_once(events: Bus) -> None:
    async with saying(events) as facts:
        facts.say(APPLIED, {"ce-id": "1"}, b"x")
        facts.say(APPLIED, {"ce-id": "1"}, b"x")
        await facts.flush()
    assert await said(events, 1) == ["x"]


async def test_a_fact_too_large_for_the_bus_does_not_hold_up_the_next(events: Bus) -> None:
    async with saying(events) as facts:
        facts.say(APPLIED, {"ce-id": "1"}, b"x" * (5 * 1024 * 1024))
        facts.say(APPLIED, {"ce-id": "2"}, b"next")
        await asyncio.wait_for(facts.flush(), 10)
    assert await said(events, 1) == ["next"]
    assert facts.lost == 1


async def test_while_the_bus_is_away_the_newest_facts_are_kept_and_the_others_counted() -> None:
    broker = MemoryBroker(heartbeat=0.1)
    bus = broker.connect()
    await ensure_streams(bus, 1, [EVENTS])
    broker.away = True
    async with saying(bus, most=10) as facts:
        for number in range(25):
            facts.say(APPLIED, {"ce-id": str(number)}, str(number).encode())
        await wait_until(lambda: facts.lost == 15)
        broker.away = False
        await asyncio.wait_for(facts.flush(), 10)
    assert await said(bus, 10) == [str(number) for number in range(15, 25)]

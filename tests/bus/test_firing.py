"""What fires is kept on the bus, so that alerts of a process that was killed do not stay for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.alarms import Alarm
from common.backoff import Backoff
from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker
from common.bus.protocol import Bus, Unavailable
from common.bus.streams import ALERTS, FIRING, ensure_streams
from common.contracts.facts import Alert
from common.contracts.subjects import firing_subject
from common.runtime.reports import Reports
from common.testing import wait_until
from seaway.alerts import firing
from tests.bus.conftest import Backend
from tests.bus.helpers import answered

QUICK = Backoff(first=0.01, most=0.05, factor=2, jitter=0)
EXPIRING = Alarm("warning", "it ends soon")


@pytest.fixture
async def alerts(backend: Backend, bus: Bus) -> Bus:
    await answered(lambda: ensure_streams(bus, backend.replicas, [ALERTS, FIRING]))
    await answered(lambda: bus.recall(FIRING.name, firing_subject("t", "edge", "nobody")))
    return bus


@asynccontextmanager
async def process(bus: Bus, instance: str = "one") -> AsyncIterator[Reports]:
    """What a service says, until it is killed."""
    facts = FactPublisher(bus, backoff=QUICK)
    reports = Reports(facts, service="edge", cluster="t", instance=instance)
    tasks = [asyncio.create_task(work) for work in (facts.run(), reports.remember(bus, QUICK, look=0.2))]
    try:
        yield reports
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def seen(bus: Bus) -> list[Alert]:
    """What an operator sees. A cluster of servers may lose a reader that was made a moment ago; he asks again."""
    found: list[Alert] = []

    async def answered() -> bool:
        try:
            found[:] = await firing(bus)
        except Unavailable:
            return False
        return True

    await wait_until(answered)
    return found


async def until_fires(bus: Bus, *expected: str) -> None:
    """Waits until an operator sees that these fire, and no others."""

    async def they_do() -> bool:
        return sorted(f"{alert.instance}:{alert.name}" for alert in await seen(bus)) == sorted(expected)

    await wait_until(they_do)


async def until_kept(bus: Bus, reports: Reports) -> None:
    """Waits until the next process would know what fires."""
    subject = firing_subject("t", "edge", "one")

    async def kept() -> bool:
        try:
            last = await bus.recall(FIRING.name, subject)
        except Unavailable:
            return False
        return last is not None and all(name.encode() in last.body for name in reports.firing)

    await wait_until(kept)


async def test_the_last_message_of_a_subject_is_recalled(alerts: Bus) -> None:
    subject = firing_subject("t", "edge", "one")
    assert await alerts.recall(FIRING.name, subject) is None
    for body in (b"first", b"second"):
        stored = await alerts.publish(subject, body, {"ce-id": "x"})

    async def second() -> bool:
        last = await alerts.recall(FIRING.name, subject)
        return last is not None and (last.body, last.sequence, last.subject) == (b"second", stored.sequence, subject)

    await wait_until(second)
    assert (last := await alerts.recall(FIRING.name, subject)) is not None
    assert last.headers == {"ce-id": "x"}
    assert last.time > 0


async def test_what_a_killed_process_left_firing_ends_when_its_successor_finds_it_over(alerts: Bus) -> None:
    async with process(alerts) as before:
        before.alerts("Expiry", {"shop": EXPIRING, "blog": EXPIRING})
        before.alert("Down", "critical", "it is down")
        await until_fires(alerts, "one:Down", "one:Expiry-blog", "one:Expiry-shop")
        await until_kept(alerts, before)
    async with process(alerts) as after:
        after.alerts("Expiry", {"blog": EXPIRING})
        await until_fires(alerts, "one:Down", "one:Expiry-blog")
        after.alert("Down", "critical", None)
        await until_fires(alerts, "one:Expiry-blog")


async def test_what_still_fires_is_said_once_by_all_processes_together(alerts: Bus) -> None:
    async with process(alerts) as before:
        before.alerts("Expiry", {"shop": EXPIRING})
        await until_fires(alerts, "one:Expiry-shop")
        await until_kept(alerts, before)
    (first,) = await seen(alerts)
    async with process(alerts) as after:
        await wait_until(lambda: "Expiry-shop" in after.firing)
        after.alerts("Expiry", {"shop": EXPIRING})
        after.alert("Mark", "info", "all before it was said")
        await until_fires(alerts, "one:Expiry-shop", "one:Mark")
    assert first in await seen(alerts)
    assert (await alerts.stream_state(ALERTS.name)).messages == 2


async def test_an_instance_ends_its_own_alerts_and_no_others(alerts: Bus) -> None:
    async with process(alerts, "one") as one, process(alerts, "two") as two:
        for each in (one, two):
            each.alerts("Expiry", {"shop": EXPIRING})
        await until_fires(alerts, "one:Expiry-shop", "two:Expiry-shop")
        await until_kept(alerts, one)
    async with process(alerts, "one") as one:
        one.alerts("Expiry", {})
        await until_fires(alerts, "two:Expiry-shop")


async def test_what_the_list_says_that_nobody_can_read_hinders_nobody(alerts: Bus) -> None:
    await alerts.publish(firing_subject("t", "edge", "one"), b"\xc1", {"ce-id": "1"})
    async with process(alerts) as reports:
        reports.alert("Down", "critical", "it is down")
        await until_fires(alerts, "one:Down")
        await until_kept(alerts, reports)


async def test_a_bus_that_lost_everything_is_told_again_what_fires(alerts: Bus, backend: Backend) -> None:
    async with process(alerts) as reports:
        reports.alerts("Expiry", {"shop": EXPIRING})
        await until_fires(alerts, "one:Expiry-shop")
        (before,) = await seen(alerts)
        for stream in (ALERTS, FIRING):
            await backend.lose(stream.name)
        await answered(lambda: ensure_streams(alerts, backend.replicas, [ALERTS, FIRING]))
        await until_fires(alerts, "one:Expiry-shop")
        assert await seen(alerts) == [before], "since then"


async def test_what_begins_to_fire_while_the_bus_has_lost_everything_hides_nothing_that_fired_before(
    alerts: Bus, backend: Backend
) -> None:
    async with process(alerts) as reports:
        reports.alerts("Expiry", {"shop": EXPIRING})
        await until_fires(alerts, "one:Expiry-shop")
        await until_kept(alerts, reports)
        for stream in (ALERTS, FIRING):
            await backend.lose(stream.name)
        reports.alert("Down", "critical", "it is down")
        await answered(lambda: ensure_streams(alerts, backend.replicas, [ALERTS, FIRING]))
        await until_fires(alerts, "one:Down", "one:Expiry-shop")


async def test_a_service_that_begins_without_a_bus_ends_what_it_left_when_there_is_one() -> None:
    broker = MemoryBroker(heartbeat=0.1)
    bus = broker.connect()
    await ensure_streams(bus, 1, [ALERTS, FIRING])
    async with process(bus) as before:
        before.alerts("Expiry", {"shop": EXPIRING})
        await until_fires(bus, "one:Expiry-shop")
        await until_kept(bus, before)
    broker.away = True
    async with process(bus) as after:
        after.alerts("Expiry", {})
        broker.away = False
        await until_fires(bus)

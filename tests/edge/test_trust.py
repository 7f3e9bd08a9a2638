"""A message on the bus is not trusted: whoever can publish there has skipped the API server, and the watcher too.

A real nats-server; what the watcher would have published is on it, and nginx serves it. Then somebody else writes.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from common.bus.facts import FactPublisher
from common.bus.nats import connect
from common.bus.protocol import HEADER_KV_OPERATION, Bus
from common.bus.settings import BusSettings
from common.bus.streams import ALERTS, ensure_streams
from common.codec import COMPRESS_ABOVE, decode, digest, encode
from common.contracts.facts import Alert
from common.contracts.objects import ConfigMap
from common.contracts.state import SyncMarker, fold, marker_event
from common.contracts.subjects import alert_subject, sync_subject
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.nats import nats_server
from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from nginx_config_renderer.follow import Intake
from nginx_config_renderer.tell import Teller
from nginx_config_renderer.wanted import FOLLOWED
from tests.edge.world import SOON, EdgeWorld, Raw, edge
from tests.messages import NOW, Stored, message

HOST = "shop.example"
SUBJECT = alert_subject("local", "critical", "edge", "MessagesUntrusted")


class Watched:
    """An edge that follows a bus, and what stands there."""

    def __init__(self, world: EdgeWorld, bus: Bus) -> None:
        self.world = world
        self.bus = bus
        self.written: dict[str, Stored] = {}

    async def write(self, one: Stored) -> None:
        """Puts a message on the bus, as it is."""
        headers = dict(one.headers) | ({HEADER_KV_OPERATION: "DEL"} if one.gone else {})
        await self.bus.publish(one.subject, one.body, headers)

    async def watch(self, version: int, *objects: Raw) -> None:
        """The watcher publishes objects."""
        for raw in objects:
            one = message(raw, version)
            self.written[raw["kind"]] = one
            await self.write(one)

    async def mark(self) -> None:
        """The watcher says that this was all."""
        for resource in (*FOLLOWED, ConfigMap.resource):
            marker = SyncMarker(watcher="w", version="1", count=0, hash=fold(()), through=0, time=NOW)
            encoded = encode(marker_event(resource, marker, source="/test"))
            await self.bus.publish(sync_subject("local", resource), encoded.body, encoded.headers)

    async def alert(self) -> Alert | None:
        """The newest alert about messages that are not taken."""
        last = await self.bus.get_last(ALERTS.name, SUBJECT)
        return Alert.model_validate(decode(last.headers, last.body).data) if last is not None else None

    async def told(self, *words: str) -> None:
        """People are told, with these words."""

        async def fires() -> bool:
            alert = await self.alert()
            return alert is not None and alert.status == "firing" and all(word in alert.summary for word in words)

        await wait_until(fires, within=SOON)

    async def over(self) -> None:
        """It is over."""

        async def resolved() -> bool:
            alert = await self.alert()
            return alert is None or alert.status == "resolved"

        await wait_until(resolved, within=SOON)

    async def serves(self, by: str = "web") -> bool:
        return (await self.world.ask(HOST)).by == by


SHOP = ingress("shop", rule(HOST, "/", "web:80"))


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server())
        bus = await connect(BusSettings(url=server.url, name="test", heartbeat=0.5))
        stack.push_async_callback(bus.close)
        await ensure_streams(bus, 1)
        world = await stack.enter_async_context(edge(tmp_path))
        facts = FactPublisher(bus)
        reports = Reports(facts, service="edge", cluster="local", instance="i")
        intake = Intake(world.wanted, world.applier, world.files, reports)
        teller = Teller(world.wanted, world.applier, world.files, intake, reports, configurator=world.configurator)
        tasks = [
            asyncio.create_task(one) for one in (facts.run(), intake.follow(bus, "local", world.settings.configmaps), teller.run())
        ]
        try:
            made = Watched(world, bus)
            await made.watch(100, ingress_class(), service("web"), service("other"), *await world.serve("web", "other"), SHOP)
            await made.mark()
            await wait_until(made.serves, within=SOON)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def hijacked(version: int = 200, **metadata: Any) -> Stored:
    """A message that leads the shop's visitors elsewhere."""
    raw = ingress("shop", rule(HOST, "/", "other:80"))
    return message({**raw, "metadata": raw["metadata"] | metadata}, version)


def with_headers(one: Stored, **changes: str) -> Stored:
    return dataclasses.replace(one, headers=dict(one.headers) | {f"ce-{name}": value for name, value in changes.items()})


def oversized() -> Stored:
    """A kilobyte that says that it becomes 64 GiB (RFC 8878 §3.1.1.1: the frame's content size)."""
    frame = b"\x28\xb5\x2f\xfd" + b"\xe0" + (64 * 1024**3).to_bytes(8, "little") + b"\x00" * COMPRESS_ABOVE
    return with_headers(dataclasses.replace(hijacked(), body=frame), datacontenttype="application/msgpack+zstd")


FORGED: Mapping[str, tuple[Callable[[], Stored], str]] = {
    "of another content than its hash": (lambda: with_headers(hijacked(), hash=digest({})), "not what its hash"),
    "without a hash": (lambda: with_headers(hijacked(), hash=""), "not what its hash"),
    "of another uid than it says": (lambda: with_headers(hijacked(), k8suid="../../etc/passwd"), "speaks of"),
    "of another kind": (lambda: with_headers(hijacked(), k8sgvk="v1/Secret"), "belongs here"),
    "that speaks of another object": (
        lambda: dataclasses.replace(message(ingress("evil", rule(HOST, "/", "other:80")), 200), subject=hijacked().subject),
        "speaks of",
    ),
    "that is no state message": (lambda: with_headers(hijacked(), type="dev.seaway.else.v1"), "no state message"),
    "that is no event": (lambda: dataclasses.replace(hijacked(), headers={}), "specversion"),
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_message_changes_nothing_and_raises_an_alert(watched: Watched, name: str) -> None:
    forged, complaint = FORGED[name]
    await refused(watched, forged(), complaint)


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
async def test_a_truncated_message_changes_nothing_and_raises_an_alert(watched: Watched, keep: int) -> None:
    whole = hijacked()
    await refused(watched, dataclasses.replace(whole, body=whole.body[:keep]), "shop")


async def test_an_oversized_message_changes_nothing_and_raises_an_alert(watched: Watched) -> None:
    await refused(watched, oversized(), f"claims {64 * 1024**3} bytes")
    whole = hijacked()
    await refused(watched, dataclasses.replace(whole, body=whole.body + bytes(500_000)), "the body is not application/msgpack")


async def test_a_replayed_message_changes_nothing_and_raises_an_alert(watched: Watched) -> None:
    old = watched.written["Ingress"]
    await watched.watch(300, ingress("shop", rule(HOST, "/", "other:80")))
    await wait_until(lambda: watched.serves("other"), within=SOON)
    await watched.write(old)
    await watched.told("version 100 came after version 300", "find out who wrote it")
    assert await watched.serves("other")
    await watched.watch(301, SHOP)
    await wait_until(watched.serves, within=SOON)
    await watched.over()


async def test_an_out_of_date_message_changes_nothing_and_raises_an_alert(watched: Watched) -> None:
    await refused(watched, hijacked(99), "version 99 came after version 100")


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (lambda: with_headers(message(SHOP, 200, gone=True), k8suid="another"), "ends no object of uid"),
        (lambda: message(SHOP, 99, gone=True), "version 99 came after version 100"),
        (lambda: dataclasses.replace(message(SHOP, 200, gone=True), headers={}), "specversion"),
        (lambda: dataclasses.replace(message(SHOP, 200, gone=True), gone=False), "is no tombstone"),
        (lambda: dataclasses.replace(hijacked(), gone=True), "no tombstone"),
    ],
)
async def test_a_forged_end_of_an_object_ends_nothing_and_raises_an_alert(
    watched: Watched, made: Callable[[], Stored], complaint: str
) -> None:
    await refused(watched, made(), complaint)


async def test_a_real_end_is_taken(watched: Watched) -> None:
    await watched.write(message(SHOP, 200, gone=True))
    await wait_until(lambda: watched.serves("404"), within=SOON)
    alert = await watched.alert()
    assert alert is None or alert.status == "resolved"


async def refused(watched: Watched, forged: Stored, complaint: str) -> None:
    """The message is told of, and nothing else changes: not what is served, and not what comes next."""
    before = await watched.world.holds()
    await watched.write(forged)
    await watched.told(complaint)
    assert await watched.serves()
    assert await watched.world.holds() == before
    await watched.watch(400, endpoint_slice("nobody", "127.0.0.1", port=9), SHOP)
    await watched.over()
    assert await watched.serves()


async def test_a_certificate_that_cannot_be_used_raises_an_alert_until_it_can(watched: Watched) -> None:
    secured = {**SHOP, "spec": SHOP["spec"] | {"tls": [{"hosts": [HOST], "secretName": "cert"}]}}
    subject = alert_subject("local", "critical", "edge", "CertificateUnusable-default-shop")

    async def alerted(status: str) -> bool:
        last = await watched.bus.get_last(ALERTS.name, subject)
        alert = Alert.model_validate(decode(last.headers, last.body).data) if last is not None else None
        return alert is not None and alert.status == status and "default/cert does not exist" in alert.summary

    await watched.watch(200, secured)
    await wait_until(lambda: alerted("firing"), within=SOON)
    await watched.watch(300, SHOP)
    await wait_until(lambda: alerted("resolved"), within=SOON)

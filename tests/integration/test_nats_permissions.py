"""A real server with our configuration: each service can do its work with its own key, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.bus.follower import Follower, Update
from common.bus.nats import NatsBus, connect
from common.bus.protocol import BusError, Denied, Start, Unavailable
from common.bus.settings import BusSettings
from common.bus.streams import ALERTS, EVENTS, FIRING, JOBS, STATE, WANTED, ensure_streams
from common.contracts.refs import ObjectRef, Resource
from common.contracts.subjects import (
    alert_subject,
    ask_subject,
    event_subject,
    firing_subject,
    job_subject,
    state_filter,
    state_subject,
    sync_subject,
    wanted_subject,
)
from common.snapshot import Replaced
from common.testing import wait_until
from common.testing.nats import NatsServer
from seaway import bus_keys
from seaway.nats_conf import BALANCER, OPERATOR, RENDERER, VIP, WATCHER, Server, User, inbox, render, roles

PODS = Resource("", "pods")
POD = state_subject("prod", ObjectRef(PODS, "shop", "web"))


class GuardedServer(NatsServer):
    """A server with the configuration that we ship."""

    users: tuple[User, ...] = ()

    def _config(self) -> str:
        server = Server(self.name, str(self.store / "data"), f"127.0.0.1:{self.port}", f"127.0.0.1:{self.monitor_port}")
        return render(server, self.users)


@dataclass(frozen=True)
class Guarded:
    """The server, and a connection for whoever has a key."""

    url: str
    keys: Path
    ends: AsyncExitStack

    async def connect(self, role: str, *, key: str = "", answers: str = "") -> NatsBus:
        settings = BusSettings(
            url=self.url,
            name=role,
            inbox=answers or inbox(role),
            nkey_file=self.keys / f"{key or role}.nkey",
            patience=10,
            request_timeout=5,
        )
        bus = await connect(settings)
        self.ends.push_async_callback(bus.close)
        return bus


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    server = GuardedServer(tmp_path / "nats")
    server.users = tuple(bus_keys.ensure(tmp_path / "keys", roles()))
    try:
        await server.start()
        async with AsyncExitStack() as ends:
            yield Guarded(server.url, tmp_path / "keys", ends)
    finally:
        await server.kill()


async def first(follower: Follower) -> Update:
    async for update in follower:
        return update
    raise AssertionError("a follower has no end")


async def test_what_the_watcher_writes_reaches_the_renderer(guarded: Guarded) -> None:
    watcher = await guarded.connect(WATCHER)
    await ensure_streams(watcher, replicas=1)
    stored = await watcher.publish(POD, b"pod", {}, expected_last=0)
    await watcher.publish(sync_subject("prod", PODS), b"marker", {})
    assert (await watcher.get_last(STATE.name, POD)) is not None

    renderer = await guarded.connect(RENDERER)
    filters = (state_filter("prod", PODS), sync_subject("prod", PODS))
    async with Follower(renderer, STATE.name, filters, name=RENDERER) as follower:
        update = await first(follower)
    assert isinstance(update, Replaced)
    assert {message.sequence for message in update.messages} == {stored.sequence, stored.sequence + 1}


async def test_the_watcher_follows_what_it_wrote(guarded: Guarded) -> None:
    watcher = await guarded.connect(WATCHER)
    await ensure_streams(watcher, replicas=1)
    await watcher.publish(POD, b"pod", {})
    async with Follower(watcher, STATE.name, (state_filter("prod", PODS),), name=WATCHER, headers_only=True) as follower:
        assert len((await first(follower)).messages) == 1


@pytest.mark.parametrize("service", [WATCHER, RENDERER])
async def test_a_service_publishes_its_own_facts_and_alerts_and_no_others(guarded: Guarded, service: str) -> None:
    await ensure_streams(await guarded.connect(WATCHER), replicas=1)
    bus = await guarded.connect(service)
    for subject in (event_subject("prod", service, "applied"), alert_subject("prod", "warning", service, "slow")):
        assert (await bus.publish(subject, b"fact", {})).sequence == 1

    other = RENDERER if service == WATCHER else WATCHER
    for subject in (event_subject("prod", other, "applied"), alert_subject("prod", "warning", other, "slow")):
        with pytest.raises(Denied):
            await bus.publish(subject, b"a lie", {})


@pytest.mark.parametrize("role", [RENDERER, OPERATOR])
@pytest.mark.parametrize(
    "subject", [POD, sync_subject("prod", PODS), job_subject("prod", "image", "build"), "$JS.API.STREAM.DELETE.STATE"]
)
async def test_nobody_but_the_watcher_changes_state(guarded: Guarded, role: str, subject: str) -> None:
    await ensure_streams(await guarded.connect(WATCHER), replicas=1)
    bus = await guarded.connect(role)
    with pytest.raises(Denied):
        await bus.publish(subject, b"{}", {})


async def test_the_renderer_reads_state_and_no_other_stream(guarded: Guarded) -> None:
    await ensure_streams(await guarded.connect(WATCHER), replicas=1)
    renderer = await guarded.connect(RENDERER)
    for stream in (EVENTS, ALERTS, JOBS):
        with pytest.raises(Denied):
            async with renderer.read(stream.name, stream.subjects, Start(), name="curious"):
                pass
        with pytest.raises(Denied):
            await renderer.get(stream.name, 1)


@pytest.mark.parametrize("service", [WATCHER, RENDERER, BALANCER, VIP])
async def test_a_service_knows_again_what_it_said_that_fires_and_nothing_else(guarded: Guarded, service: str) -> None:
    watcher = await guarded.connect(WATCHER)
    await ensure_streams(watcher, replicas=1)
    bus = await guarded.connect(service)
    own = firing_subject("prod", service, "node-1")
    await bus.publish(own, b"mine", {})
    assert (last := await bus.recall(FIRING.name, own)) is not None
    assert last.body == b"mine"

    other = firing_subject("prod", RENDERER if service == WATCHER else WATCHER, "node-1")
    with pytest.raises(Denied):
        await bus.publish(other, b"a lie", {})
    with pytest.raises(Denied):
        await bus.recall(FIRING.name, other)
    with pytest.raises(Denied):
        await bus.recall(ALERTS.name, alert_subject("prod", "warning", service, "slow"))
    with pytest.raises(Denied):
        async with bus.read(FIRING.name, (own,), Start(), name="curious"):
            pass


@pytest.mark.parametrize(
    "asked", [{"seq": 1}, {"last_by_subj": "{other}"}, {"multi_last": ["{other}"]}, {"next_by_subj": "firing.v1.>"}]
)
async def test_a_question_for_ones_own_list_is_not_answered_with_anothers(guarded: Guarded, asked: dict[str, object]) -> None:
    """What is asked for stands in the subject, where the server checks it; what the body says besides must not matter."""
    watcher, renderer = await guarded.connect(WATCHER), await guarded.connect(RENDERER)
    await ensure_streams(watcher, replicas=1)
    other, own = firing_subject("prod", WATCHER, "w"), firing_subject("prod", RENDERER, "r")
    await watcher.publish(other, b"not yours", {})
    await renderer.publish(own, b"mine", {})
    body = json.dumps(asked).replace("{other}", other).encode()
    answer = await renderer._link.request(f"$JS.API.DIRECT.GET.FIRING.{own}", body)
    assert answer.data in {b"mine", b""}


async def test_a_reader_cannot_have_state_delivered_as_state(guarded: Guarded) -> None:
    """A push consumer makes the server publish in the reader's stead; its target stands in the body, where no permission reaches."""
    watcher = await guarded.connect(WATCHER)
    await ensure_streams(watcher, replicas=1)
    await watcher.publish(POD, b"pod", {})
    renderer = await guarded.connect(RENDERER)
    forged = state_subject("prod", ObjectRef(PODS, "shop", "forged"))
    config = {"name": "push", "deliver_subject": forged, "deliver_policy": "all", "ack_policy": "none", "filter_subject": POD}
    with pytest.raises(BusError, match="cycle"):
        await renderer.publish(
            f"$JS.API.CONSUMER.CREATE.STATE.push.{POD}", json.dumps({"stream_name": "STATE", "config": config}).encode(), {}
        )
    assert await watcher.get_last(STATE.name, forged) is None


async def test_a_reader_of_another_stream_cannot_have_what_it_wrote_there_stored_as_state(guarded: Guarded) -> None:
    """The server takes the consumer, and delivers only to who has subscribed to exactly its subject."""
    watcher, holder = await guarded.connect(WATCHER), await guarded.connect(VIP)
    await ensure_streams(watcher, replicas=1)
    said, arrived = wanted_subject("prod", VIP, "forged"), asyncio.Event()

    async def hear(_: object) -> None:
        arrived.set()

    await holder.publish(said, b"forged", {})
    own = f"{inbox(VIP)}.pushed"
    async with holder._link.subscribed(own, hear):
        for name, target in (("forger", POD), ("honest", own)):
            config = {
                "name": name,
                "deliver_subject": target,
                "deliver_policy": "all",
                "ack_policy": "none",
                "filter_subject": said,
            }
            request = json.dumps({"stream_name": WANTED.name, "config": config}).encode()
            answer = await holder._link.request(f"$JS.API.CONSUMER.CREATE.WANTED.{name}.{said}", request)
            assert "error" not in json.loads(answer.data)
        await arrived.wait()
    assert await watcher.get_last(STATE.name, POD) is None


async def test_the_operator_reads_everything_that_is_kept(guarded: Guarded) -> None:
    watcher = await guarded.connect(WATCHER)
    await ensure_streams(watcher, replicas=1)
    await watcher.publish(POD, b"pod", {})
    await watcher.publish(event_subject("prod", WATCHER, "synced"), b"fact", {})
    operator = await guarded.connect(OPERATOR)
    for stream in (STATE, EVENTS):
        async with Follower(operator, stream.name, stream.subjects, name=OPERATOR) as follower:
            assert len((await first(follower)).messages) == 1


async def test_the_operator_alone_asks_the_renderer_and_is_the_only_one_who_is_answered(guarded: Guarded) -> None:
    subject = ask_subject("prod", RENDERER, "explain")

    async def echo(body: bytes) -> bytes:
        return body

    renderer, operator = await guarded.connect(RENDERER), await guarded.connect(OPERATOR)
    async with renderer.answering(subject, echo):

        async def answered() -> bool:
            try:
                return await operator.ask(subject, b"why", within=5, grace=0) == [b"why"]
            except Unavailable:
                return False

        await wait_until(answered)
        for role in (WATCHER, RENDERER):
            with pytest.raises(Denied):
                await (await guarded.connect(role)).ask(subject, b"why", within=5, grace=0)

        # The answer goes where the question says, which must not be where state stands.
        await ensure_streams(await guarded.connect(WATCHER), replicas=1)
        await operator._link.send(subject, b"forged", reply=POD)
        await operator.ask(subject, b"after it", within=5, grace=0)
        assert await operator.get_last(STATE.name, POD) is None


async def test_nobody_listens_to_the_answers_that_another_gets(guarded: Guarded) -> None:
    with pytest.raises(BusError):
        await guarded.connect(RENDERER, answers=inbox(WATCHER))


async def test_without_a_key_there_is_no_bus(guarded: Guarded) -> None:
    with pytest.raises(Denied):
        await connect(BusSettings(url=guarded.url, patience=10))
    bus_keys.ensure(guarded.keys, ["stranger"])
    with pytest.raises(Denied):
        await guarded.connect(WATCHER, key="stranger")


@pytest.mark.parametrize("service", [BALANCER, VIP])
async def test_a_service_wishes_for_addresses_in_its_own_name_and_no_other(guarded: Guarded, service: str) -> None:
    await ensure_streams(await guarded.connect(WATCHER), replicas=1)
    bus = await guarded.connect(service)
    assert (await bus.publish(wanted_subject("prod", service, "addresses"), b"wish", {})).sequence == 1
    other = VIP if service == BALANCER else BALANCER
    for subject in (wanted_subject("prod", other, "addresses"), event_subject("prod", other, "lie"), POD):
        with pytest.raises(Denied):
            await bus.publish(subject, b"a lie", {})


async def test_who_holds_addresses_hears_what_the_balancer_wishes(guarded: Guarded) -> None:
    await ensure_streams(await guarded.connect(WATCHER), replicas=1)
    balancer = await guarded.connect(BALANCER)
    subject = wanted_subject("prod", BALANCER, "addresses")
    await balancer.publish(subject, b"wish", {})
    assert (last := await balancer.get_last(WANTED.name, subject)) is not None
    assert last.body == b"wish"
    holder = await guarded.connect(VIP)
    async with Follower(holder, WANTED.name, WANTED.subjects, name=VIP) as follower:
        assert [message.body for message in (await first(follower)).messages] == [b"wish"]

"""The watcher on a real API server and a real bus: whatever happens to any of them, the replica is the cluster in the end."""

import asyncio
import base64
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.watcher_world import SOON, become_equal, markers, messages, on_the_bus, watcher

from common.bus.follower import Follower
from common.bus.nats import NatsBus, connect
from common.bus.protocol import Start
from common.bus.settings import BusSettings
from common.bus.streams import STATE
from common.codec import decode, digest, encode
from common.contracts.objects import MODELS
from common.contracts.refs import ObjectRef, Resource
from common.contracts.state import ObjectApplied, applied_event, read_state
from common.contracts.subjects import parse_state, state_subject
from common.kube.session import KubeSession
from common.replica import Comparison, Replica
from common.runtime.reports import timestamp
from common.snapshot import Replaced
from common.store import Store
from common.testing import wait_until
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.nats import NatsServer, nats_server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

SERVICES = Resource("", "services")
CONFIGMAPS = Resource("", "configmaps")
SECRETS = Resource("", "secrets")
NODES = Resource("", "nodes")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[KubeApi]:
    async with kube_api(watch_cache=False) as api:
        yield api


@pytest_asyncio.fixture(loop_scope="module")
async def nats() -> AsyncIterator[NatsServer]:
    async with nats_server() as server:
        yield server


def service(name: str, port: int = 80) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": port}]}}


async def make(kube: KubeSession, name: str) -> ObjectRef:
    await kube.create(SERVICES, service(name), namespace="default")
    return ObjectRef(SERVICES, "default", name)


async def test_the_replica_follows_the_cluster_and_says_so(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    web = await make(kube, "web")
    async with watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        await become_equal(kube, nats)

        await kube.patch(web, {"spec": {"ports": [{"name": "http", "port": 81}]}}, manager="t", kind="merge")
        await become_equal(kube, nats)
        await kube.delete(web)
        await become_equal(kube, nats)
        assert web not in await on_the_bus(nats)
        await make(kube, "web")  # the same name, another object
        await become_equal(kube, nats)

        async def marked() -> bool:
            marked = (await markers(nats)).get("services")
            held = [ref for ref in await on_the_bus(nats) if ref.resource == SERVICES]
            return marked is not None and marked.count == len(held)

        await wait_until(marked, within=SOON)
    await kube.delete(web)


async def test_a_change_that_means_nothing_is_not_published(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    node = ObjectRef(NODES, "", "n1")
    await kube.create(NODES, {"metadata": {"name": "n1"}})
    async with watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        await become_equal(kube, nats)
        stored = {message.subject: message.sequence for message in await messages(nats)}

        beat = {"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}}
        await kube.patch(node, beat, manager="kubelet", kind="merge", subresource="status")
        await become_equal(kube, nats)
        once = {message.subject: message.sequence for message in await messages(nats)}
        beat["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:00:10Z"
        await kube.patch(node, beat, manager="another-manager", kind="merge", subresource="status")
        mark = await make(kube, "mark")  # what comes after it shows that the heartbeat was seen
        await become_equal(kube, nats)
        twice = {message.subject: message.sequence for message in await messages(nats)}

        subject = next(subject for subject in stored if ".nodes." in subject)
        assert stored[subject] < once[subject], "that the node is ready now is news"
        assert twice[subject] == once[subject], "that it still is, is none"
    await kube.delete(node)
    await kube.delete(mark)


async def test_no_byte_of_a_secret_is_on_the_bus(api: KubeApi, kube: KubeSession, tmp_path: Path) -> None:
    secret = "hunter2-of-the-database"  # noqa: S105 what must not be found
    encoded = base64.b64encode(secret.encode()).decode()
    applied = {"kubectl.kubernetes.io/last-applied-configuration": f'{{"data":{{"password":"{encoded}"}}}}'}
    body = {"metadata": {"name": "db", "annotations": applied}, "stringData": {"password": secret}}
    await kube.create(SECRETS, body, namespace="default")
    async with nats_server(store=tmp_path / "store") as nats, watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        await become_equal(kube, nats)
        assert ObjectRef(SECRETS, "default", "db") in await on_the_bus(nats), "the notice is there"
        for message in await messages(nats):
            seen = f"{message.headers} {decode(message.headers, message.body).data if message.body else ''}"
            assert secret not in seen
            assert encoded not in seen
        stored = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
        assert b"state.v1.local" in stored
        for text in (secret, encoded):
            assert text.encode() not in stored
            assert text not in process.log
    await kube.delete(ObjectRef(SECRETS, "default", "db"))


async def test_deletes_that_nobody_saw_become_tombstones(api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path) -> None:
    gone, again = await make(kube, "gone"), await make(kube, "again")
    async with watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        await become_equal(kube, nats)
        before = await on_the_bus(nats)
        assert await process.end() == 0

        await kube.delete(gone)
        await kube.delete(again)
        await make(kube, "again")
        new = await make(kube, "new")
        await process.start()
        await process.ready()
        await become_equal(kube, nats)
        after = await on_the_bus(nats)
        assert gone not in after
        assert after[again][0] != before[again][0], "another uid"
    await kube.delete(again)
    await kube.delete(new)


async def test_a_stopped_watcher_finds_its_way_when_history_is_gone(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    old = await make(kube, "old")
    async with watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        await become_equal(kube, nats)
        process.send(signal.SIGSTOP)
        await api.kill_apiserver()  # the watches break while nobody looks
        await api.start_apiserver()
        await kube.delete(old)
        new = await make(kube, "new")
        await api.compact_etcd()
        process.send(signal.SIGCONT)
        await become_equal(kube, nats)
    await kube.delete(new)


async def test_the_api_server_and_the_bus_may_go_away_and_come_back(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    async with watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        first = await make(kube, "first")
        await become_equal(kube, nats)

        await api.restart_apiserver()
        second = await make(kube, "second")
        await become_equal(kube, nats)

        await nats.kill()
        await kube.delete(first)
        third = await make(kube, "third")
        await nats.start()
        await become_equal(kube, nats)

        await nats.kill()
        await api.kill_apiserver()
        await nats.start()
        await api.start_apiserver()
        await kube.delete(second)
        await become_equal(kube, nats)

        bus = await connect(BusSettings(url=nats.url))
        await bus._api("STREAM.DELETE.STATE")
        await bus.close()
        await become_equal(kube, nats)
        assert process.code is None, "all that in one life"
    await kube.delete(third)


async def test_a_bus_that_was_emptied_is_filled_again(api: KubeApi, kube: KubeSession, tmp_path: Path) -> None:
    async with nats_server() as first, watcher(tmp_path, "w", api, first) as process:
        await process.ready()
        await become_equal(kube, first)
        await first.kill()
        shutil.rmtree(first.store / "jetstream")
        await first.start()
        await become_equal(kube, first)
        assert process.code is None


async def test_a_stand_by_takes_over_at_once_when_the_leader_ends_and_later_when_it_dies(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    terms = {"LEASE_NAME": "handover", "LEASE_NAMESPACE": "default", "LEASE_DURATION": "3"}
    async with watcher(tmp_path, "one", api, nats, **terms) as one:
        await one.ready()
        await become_equal(kube, nats)
        async with watcher(tmp_path, "two", api, nats, **terms) as two:
            await two.ready()  # a stand-by is ready: it can take over
            assert "office.leading" not in two.log
            assert await one.end() == 0
            web = await make(kube, "web")
            await become_equal(kube, nats)
            assert (await markers(nats))["services"].watcher == "two"

            async with watcher(tmp_path, "three", api, nats, **terms) as three:
                await three.ready()
                await two.end(signal.SIGKILL)
                await kube.delete(web)
                await become_equal(kube, nats)
                assert (await markers(nats))["services"].watcher == "three"


async def test_a_leader_that_was_frozen_ends_when_it_wakes_and_spoils_nothing(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    terms = {"LEASE_NAME": "frozen", "LEASE_NAMESPACE": "default", "LEASE_DURATION": "3"}
    async with watcher(tmp_path, "one", api, nats, **terms) as one:
        await one.ready()
        await become_equal(kube, nats)
        async with watcher(tmp_path, "two", api, nats, **terms) as two:
            await two.ready()
            one.send(signal.SIGSTOP)
            web = await make(kube, "web")
            await become_equal(kube, nats)
            await kube.delete(web)
            again = await make(kube, "web")
            await become_equal(kube, nats)
            one.send(signal.SIGCONT)
            await wait_until(lambda: one.code is not None, within=SOON)
            assert one.code == 1
            assert "this watcher ends, so that only one keeps the replica" in one.log
            await kube.delete(again)
            await become_equal(kube, nats)
            assert (await markers(nats))["services"].watcher == "two"


async def test_two_who_believe_to_lead_are_told_apart_by_the_bus(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    """No Lease at all: the older one finds what the newer one wrote, and ends."""
    async with watcher(tmp_path, "older", api, nats) as older:
        await older.ready()
        await become_equal(kube, nats)
        older.send(signal.SIGSTOP)
        async with watcher(tmp_path, "newer", api, nats) as newer:
            await newer.ready()
            web = await make(kube, "web")
            await kube.patch(web, {"spec": {"ports": [{"name": "http", "port": 99}]}}, manager="t", kind="merge")
            await become_equal(kube, nats)
            older.send(signal.SIGCONT)
            await become_equal(kube, nats)
            await kube.delete(web)
            await become_equal(kube, nats)


async def test_what_may_not_be_read_is_said_and_mended_without_a_restart(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"}}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
    group = "rbac.authorization.k8s.io"
    account = Resource("", "serviceaccounts")
    await kube.create(account, {"metadata": {"name": "reader"}}, namespace="default")
    await kube.create(Resource(group, "clusterroles"), {**role, "rules": rules})
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
        "subjects": [subject],
    }
    await kube.create(Resource(group, "clusterrolebindings"), binding)
    token = await api.token_for("default", "reader")
    limited = tmp_path / "kubeconfig"
    limited.write_text(api.kubeconfig.read_text().replace(api.admin_token, token))
    resources = '["configmaps", "services"]'
    async with watcher(tmp_path, "w", api, nats, KUBECONFIG=str(limited), RESOURCES=resources) as process:

        async def complained() -> bool:
            complaint = await process.complaint()
            return complaint is not None and "services" in complaint and "ClusterRole" in complaint

        await wait_until(complained, within=SOON)
        assert "configmaps" in await markers(nats), "what may be read is there"
        await _alarmed(nats, "services")

        await kube.patch(
            ObjectRef(Resource(group, "clusterroles"), "", "reader"),
            {"rules": [{"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["list", "watch"]}]},
            manager="t",
            kind="merge",
        )
        await process.ready()
        assert "services" in await markers(nats)


async def test_a_bus_that_refuses_is_told_of_and_nothing_is_lost(api: KubeApi, kube: KubeSession, tmp_path: Path) -> None:
    def users(denied: str) -> str:
        permissions = f'permissions: {{ publish: {{ deny: ["{denied}"] }} }}'
        return f"authorization {{ users: [ {{ user: w, password: w, {permissions} }} ] }}\nno_auth_user: w"

    async with nats_server(extra=users("state.v1.local.core.configmaps.>")) as nats, watcher(tmp_path, "w", api, nats) as process:
        await wait_until(lambda: "seems not to be allowed" in process.log or "ermission" in process.log, within=SOON)

        async def complained() -> bool:
            return "the bus does not take" in (await process.complaint() or "")

        await wait_until(complained, within=SOON)
        held = await on_the_bus(nats)
        assert any(ref.resource == SERVICES for ref in held), "nobody else is held up"
        await nats.reconfigure(users("nothing"))
        await process.ready()
        await become_equal(kube, nats)


async def test_a_marker_tells_a_reader_that_its_replica_is_wrong(
    api: KubeApi, kube: KubeSession, nats: NatsServer, tmp_path: Path
) -> None:
    """Somebody else writes on the bus; the count and the fold of the next marker do not fit what stands there."""
    async with watcher(tmp_path, "w", api, nats) as process:
        await process.ready()
        await become_equal(kube, nats)
        true = next(message for message in await messages(nats) if ".configmaps." in message.subject)
        state = read_state(parse_state(true.subject).ref, decode(true.headers, true.body))
        assert isinstance(state, ObjectApplied)
        forged = replace(state.object, metadata=replace(state.object.metadata, name="forged"))
        event = applied_event(ObjectApplied(forged, state.version, digest(forged.to_data())), source="nobody", time=timestamp())
        encoded = encode(event)

        bus = await connect(BusSettings(url=nats.url))
        async with aclosing(_comparisons(bus)) as comparisons:
            async with asyncio.timeout(SOON):
                assert all([(await anext(comparisons)).equal for _ in range(len(MODELS))])
                await bus.publish(state_subject("local", forged.ref), encoded.body, encoded.headers)
                while (wrong := await anext(comparisons)).equal:
                    pass
        assert (wrong.resource, wrong.count) == (CONFIGMAPS, wrong.marker.count + 1)
        await bus.close()


async def _comparisons(bus: NatsBus) -> AsyncGenerator[Comparison]:
    """What the markers say of a replica, as they come."""
    replica = Replica("local", Store())
    async with Follower(bus, STATE.name, ("state.v1.>", "sync.v1.>"), name="test") as follower:
        async for update in follower:
            if isinstance(update, Replaced):
                replica.replace(update.messages, update.tombstones)
                continue
            for comparison in replica.change(update.messages).comparisons:
                yield comparison


async def _alarmed(nats: NatsServer, text: str) -> None:
    bus = await connect(BusSettings(url=nats.url))
    try:
        async with bus.read("ALERTS", ("alerts.v1.>",), Start(1), name="test") as reader:

            async def heard() -> bool:
                return any(text in str(decode(m.headers, m.body).data) for m in await reader.batch())

            await wait_until(heard, within=SOON)
    finally:
        await bus.close()

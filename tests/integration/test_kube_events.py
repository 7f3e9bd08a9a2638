"""A real API server: Events count, never hold anybody up, and are told where people look."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from common.backoff import Backoff
from common.contracts.problems import Problem
from common.contracts.refs import ObjectRef, Resource
from common.kube import Raw
from common.kube.aggregation import Limits
from common.kube.events import EVENTS, Recorder
from common.kube.session import KubeSession, Scope
from common.testing.kubernetes import KubeApi
from common.testing.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = Limits(refresh=0.1, rate=1000, burst=1000)
LIMIT = 60.0
CONFIGMAPS = Resource("", "configmaps")


@asynccontextmanager
async def recorder(kube: KubeSession, limits: Limits = LIMITS) -> AsyncIterator[Recorder]:
    made = Recorder(kube, "tester", "tester-1", limits=limits, backoff=Backoff(first=0.05, most=0.2))
    running = asyncio.create_task(made.run())
    try:
        yield made
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def make(kube: KubeSession, name: str) -> tuple[ObjectRef, str]:
    made = await kube.create(CONFIGMAPS, {"metadata": {"name": name}}, namespace="default")
    return ObjectRef(CONFIGMAPS, "default", name), made["metadata"]["uid"]


async def told(kube: KubeSession, name: str) -> list[Raw]:
    found = await kube.list(EVENTS)
    return [event for event in found.items if event["regarding"]["name"] == name]


def counted(kube: KubeSession, name: str, *counts: int) -> Callable[[], object]:
    """Whether the Events of `name` count so much."""

    async def condition() -> bool:
        return sorted(event.get("series", {}).get("count", 1) for event in await told(kube, name)) == sorted(counts)

    return condition


async def test_the_same_again_and_again_is_one_event_that_counts(kube: KubeSession) -> None:
    ref, uid = await make(kube, "again")
    async with recorder(kube) as events:
        events.record_problem(Problem(ref, "BadKey", 'key "a/b" is no file name; rename it'), uid)
        await wait_until(counted(kube, "again", 1), within=LIMIT)
        for _ in range(99):
            events.record_problem(Problem(ref, "BadKey", 'key "a/b" is no file name; rename it'), uid)
        events.record(ref, uid, reason="Applied", note="all is well", type="Normal")
        await wait_until(counted(kube, "again", 100, 1), within=LIMIT)
    bad = next(event for event in await told(kube, "again") if event["reason"] == "BadKey")
    assert bad["regarding"] == {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "default", "name": "again", "uid": uid}
    assert (bad["type"], bad["note"], bad["reportingController"], bad["reportingInstance"]) == (
        "Warning",
        'key "a/b" is no file name; rename it',
        "seaway.dev/tester",
        "tester-1",
    )


async def test_people_see_it_where_they_look(api: KubeApi, kube: KubeSession) -> None:
    ref, uid = await make(kube, "seen")
    async with recorder(kube) as events:
        events.record(ref, uid, reason="BadKey", note="rename it")
        await wait_until(counted(kube, "seen", 1), within=LIMIT)
    described = await api.kubectl("describe", "configmap", "seen")
    assert "Warning" in described
    assert "BadKey" in described
    assert "rename it" in described


async def test_an_event_of_a_cluster_object_and_with_a_long_note_is_told_too(kube: KubeSession) -> None:
    made = await kube.create(Resource("", "nodes"), {"metadata": {"name": "worker-1.example.org"}})
    node = ObjectRef(Resource("", "nodes"), "", "worker-1.example.org")
    async with recorder(kube) as events:
        events.record(node, made["metadata"]["uid"], reason="Far", note="ü" * 2000, type="Normal", action="Look")
        await wait_until(counted(kube, node.name, 1), within=LIMIT)
    (event,) = await told(kube, node.name)
    assert event["metadata"]["namespace"] == "default"
    assert event["note"].endswith("ü…")
    assert len(event["note"].encode()) <= 1024


async def test_an_event_that_expired_is_told_anew(kube: KubeSession) -> None:
    ref, uid = await make(kube, "expired")
    async with recorder(kube) as events:
        events.record(ref, uid, reason="BadKey", note="rename it")
        await wait_until(counted(kube, "expired", 1), within=LIMIT)
        (event,) = await told(kube, "expired")
        await kube.delete(ObjectRef(EVENTS, "default", event["metadata"]["name"]))
        events.record(ref, uid, reason="BadKey", note="rename it")
        await wait_until(counted(kube, "expired", 2), within=LIMIT)


async def test_what_the_server_refuses_is_counted_and_holds_up_nothing_else(kube: KubeSession) -> None:
    ref, uid = await make(kube, "refused")
    async with recorder(kube) as events:
        events.record(ObjectRef(CONFIGMAPS, "no-such-namespace", "x"), "u", reason="BadKey", note="rename it")
        events.record(ObjectRef(Resource("no.such.group", "things"), "default", "x"), "u", reason="BadKey", note="rename it")
        events.record(ref, uid, reason="", note="an Event needs a reason")
        events.record(ref, uid, reason="BadKey", note="rename it")
        await wait_until(counted(kube, "refused", 1), within=LIMIT)
        await wait_until(lambda: events.dropped == 3, within=LIMIT)


async def test_a_flood_is_cut_off_and_counted(kube: KubeSession) -> None:
    ref, uid = await make(kube, "flood")
    events = Recorder(kube, "tester", "tester-1", limits=Limits(occasions=5))
    for number in range(20):
        events.record(ref, uid, reason="Flood", note=f"wave {number}")
    assert events.dropped == 15


async def test_what_is_recorded_while_the_api_server_is_away_is_told_when_it_is_back(api: KubeApi, kube: KubeSession) -> None:
    ref, uid = await make(kube, "away")
    async with recorder(kube) as events:
        await api.kill_apiserver()
        for _ in range(3):
            events.record(ref, uid, reason="Away", note="nobody listens")
        await api.start_apiserver()
        await wait_until(counted(kube, "away", 3), within=LIMIT)
        assert events.dropped == 0


async def test_what_is_left_at_the_end_is_drained(kube: KubeSession) -> None:
    ref, uid = await make(kube, "drained")
    events = Recorder(kube, "tester", "tester-1", limits=LIMITS)
    for number in range(5):
        events.record(ref, uid, reason="Last", note=f"word {number}")
    await events.drain(LIMIT)
    assert len(await told(kube, "drained")) == 5
    assert len((await kube.list(EVENTS, Scope("default"))).items) >= 5

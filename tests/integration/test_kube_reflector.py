"""A real API server: every change is seen, once, and nothing that breaks loses one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from common.backoff import Backoff
from common.contracts.refs import ObjectRef, Resource
from common.kube.reflection import Event, Listed, Phase, Tuning
from common.kube.reflector import Reflector
from common.kube.session import KubeSession, Scope
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIGMAPS = Resource("", "configmaps")
QUICK = Tuning(backoff=Backoff(first=0.05, most=0.2))
LIMIT = 60.0  # seconds for anything that is waited for here; it is a fence, not an expectation


async def make_namespace(kube: KubeSession, name: str) -> str:
    await kube.create(Resource("", "namespaces"), {"metadata": {"name": name}})
    return name


async def put(kube: KubeSession, namespace: str, name: str, text: str = "") -> None:
    await kube.create(CONFIGMAPS, {"metadata": {"name": name}, "data": {"text": text}}, namespace=namespace)


async def change(kube: KubeSession, namespace: str, name: str, text: str) -> None:
    await kube.patch(ObjectRef(CONFIGMAPS, namespace, name), {"data": {"text": text}}, manager="test")


async def remove(kube: KubeSession, namespace: str, name: str) -> None:
    await kube.delete(ObjectRef(CONFIGMAPS, namespace, name))


def names(listed: Listed) -> list[str]:
    return sorted(item["metadata"]["name"] for item in listed.items)


def told(event: Event) -> tuple[str, str, str]:
    return (event.kind, event.object["metadata"]["name"], event.object["data"]["text"])


def fold(belief: dict[str, str], observation: Listed | Event) -> dict[str, str]:
    """Name and text of each object, after `observation` is believed."""
    if isinstance(observation, Listed):
        belief.clear()
        belief |= {item["metadata"]["name"]: item["data"]["text"] for item in observation.items}
    elif observation.kind == "DELETED":
        del belief[observation.object["metadata"]["name"]]
    else:
        belief[observation.object["metadata"]["name"]] = observation.object["data"]["text"]
    return belief


async def following(observations: AsyncIterator[Listed | Event]) -> Any:
    async with asyncio.timeout(LIMIT):
        return await anext(observations)


@pytest.mark.parametrize("streaming", [True, False])
async def test_what_is_there_is_listed_and_every_change_is_told(kube: KubeSession, *, streaming: bool) -> None:
    space = await make_namespace(kube, f"changes-{streaming}".lower())
    await put(kube, space, "old", "1")
    reflector = Reflector(kube, CONFIGMAPS, Scope(space), tuning=Tuning(streaming=streaming))
    async with aclosing(reflector.observe()) as observations:
        assert names(await following(observations)) == ["old"]
        await put(kube, space, "new", "1")
        await change(kube, space, "old", "2")
        await remove(kube, space, "old")
        events = [told(await following(observations)) for _ in range(3)]
        assert events == [("ADDED", "new", "1"), ("MODIFIED", "old", "2"), ("DELETED", "old", "2")]
        assert reflector.health.phase is Phase.WATCHING


async def test_a_streamed_listing_equals_a_paged_one(kube: KubeSession) -> None:
    space = await make_namespace(kube, "many")
    await asyncio.gather(*(put(kube, space, f"map-{number}", str(number)) for number in range(700)))
    listings = []
    for streaming in (True, False):
        async with aclosing(
            Reflector(kube, CONFIGMAPS, Scope(space), tuning=Tuning(streaming=streaming)).observe()
        ) as observations:
            listings.append(await following(observations))
    streamed, paged = ({item["metadata"]["name"]: item for item in listing.items} for listing in listings)
    assert len(paged) == 700
    assert streamed == paged
    assert listings[0].resource_version == listings[1].resource_version


async def test_selectors_choose_what_is_seen(kube: KubeSession) -> None:
    space = await make_namespace(kube, "chosen")
    for name in ("red", "blue"):
        await kube.create(CONFIGMAPS, {"metadata": {"name": name, "labels": {"colour": name}}}, namespace=space)
    for scope in (Scope(space, labels="colour=red"), Scope(space, fields="metadata.name=red")):
        async with aclosing(Reflector(kube, CONFIGMAPS, scope).observe()) as observations:
            assert names(await following(observations)) == ["red"]


async def test_an_object_near_the_limit_of_size_comes_through_a_watch(kube: KubeSession) -> None:
    space = await make_namespace(kube, "large")
    async with aclosing(Reflector(kube, CONFIGMAPS, Scope(space)).observe()) as observations:
        assert names(await following(observations)) == []
        text = '\\"\n' * 300_000  # 900 kB, and twice that in JSON
        await put(kube, space, "large", text)
        await put(kube, space, "small", "1")
        assert told(await following(observations)) == ("ADDED", "large", text)
        assert told(await following(observations)) == ("ADDED", "small", "1")


async def test_a_watch_that_the_server_ends_goes_on_without_a_gap(kube: KubeSession) -> None:
    space = await make_namespace(kube, "short")
    tuning = replace(QUICK, watch=1, short=0)
    async with aclosing(Reflector(kube, CONFIGMAPS, Scope(space), tuning=tuning, chance=lambda: 0.0).observe()) as observations:
        assert names(await following(observations)) == []

        async def write() -> None:
            for number in range(60):
                await put(kube, space, f"map-{number}")
                await asyncio.sleep(0.05)  # spreads the writes over several watches of one second

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            seen = [told(await following(observations)) for _ in range(60)]
    assert seen == [("ADDED", f"map-{number}", "") for number in range(60)]


async def test_a_restart_of_the_api_server_loses_nothing(api: KubeApi, kube: KubeSession) -> None:
    space = await make_namespace(kube, "restart")
    await put(kube, space, "kept", "0")
    await put(kube, space, "gone", "0")
    reflector = Reflector(kube, CONFIGMAPS, Scope(space), tuning=QUICK)
    async with aclosing(reflector.observe()) as observations:
        belief = fold({}, await following(observations))
        assert belief == {"kept": "0", "gone": "0"}
        await change(kube, space, "kept", "1")
        await api.kill_apiserver()

        async def follow() -> None:
            while belief != {"kept": "2", "new": "0"}:
                fold(belief, await following(observations))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            await wait_until(lambda: reflector.health.phase is Phase.FAILING, within=LIMIT)
            assert "no whole answer from the API server" in (reflector.health.last_error or "")
            await api.start_apiserver()
            await remove(kube, space, "gone")
            await change(kube, space, "kept", "2")
            await put(kube, space, "new", "0")
        assert reflector.health.phase is Phase.WATCHING
        assert reflector.health.last_error is None


async def test_a_delete_that_history_has_forgotten_is_found_by_a_new_listing(api: KubeApi, kube: KubeSession) -> None:
    space = await make_namespace(kube, "compacted")
    await put(kube, space, "kept")
    await put(kube, space, "lost")
    reflector = Reflector(kube, CONFIGMAPS, Scope(space), tuning=QUICK)
    async with aclosing(reflector.observe()) as observations:
        assert names(await following(observations)) == ["kept", "lost"]
        await api.restart_apiserver()  # ends the watch, which nobody reads just now
        await remove(kube, space, "lost")
        await api.compact_etcd()
        await api.restart_apiserver()  # its watch cache remembers nothing from before
        relisted = await following(observations)
        assert isinstance(relisted, Listed)
        assert names(relisted) == ["kept"]
        await change(kube, space, "kept", "2")
        assert told(await following(observations)) == ("MODIFIED", "kept", "2")


async def test_a_server_without_a_watch_cache_is_followed_too() -> None:
    async with kube_api(watch_cache=False) as api, KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube:
        await put(kube, "default", "a")
        async with aclosing(Reflector(kube, CONFIGMAPS, Scope("default"), tuning=QUICK).observe()) as observations:
            assert names(await following(observations)) == ["a"]
            await remove(kube, "default", "a")
            assert told(await following(observations)) == ("DELETED", "a", "")


async def test_a_resource_that_is_installed_later_is_found_then(kube: KubeSession) -> None:
    buoys = Resource("sea.example.org", "buoys")
    reflector = Reflector(kube, buoys, tuning=QUICK)
    async with aclosing(reflector.observe()) as observations, asyncio.TaskGroup() as tasks:
        listed = tasks.create_task(following(observations))
        await wait_until(lambda: reflector.health.phase is Phase.FAILING, within=LIMIT)
        assert "serves no resource buoys.sea.example.org" in (reflector.health.last_error or "")
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        definition = {
            "metadata": {"name": "buoys.sea.example.org"},
            "spec": {
                "group": buoys.group,
                "names": {"plural": "buoys", "singular": "buoy", "kind": "Buoy"},
                "scope": "Cluster",
                "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
            },
        }
        await kube.create(Resource("apiextensions.k8s.io", "customresourcedefinitions"), definition)
        assert names(await listed) == []
    api_of_buoys = await kube.api(buoys)
    assert (api_of_buoys.api_version, api_of_buoys.kind, api_of_buoys.namespaced) == ("sea.example.org/v1", "Buoy", False)

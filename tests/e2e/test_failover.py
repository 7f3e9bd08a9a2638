"""`seaway failover` switches an Ingress to its stand-by Service, in a folder and in a cluster, and says what it did."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from common.contracts.refs import ObjectRef, Resource
from common.kube.events import EVENTS
from common.kube.session import KubeSession
from common.testing import wait_until
from common.testing.kubernetes import backend_namespace, kube_api
from common.testing.objects import endpoint_slice, ingress, ingress_class, rule, service
from tests.e2e.up_world import SOON, Up, up, write
from tests.edge.world import backend

pytestmark = pytest.mark.timeout(180)

PORT = 8080
HOST = "shop.example"
STANDBY = {"seaway.dev/emergency-service": "spare"}
PLACES = {
    "IngressClass": Resource("networking.k8s.io", "ingressclasses"),
    "Ingress": Resource("networking.k8s.io", "ingresses"),
    "Service": Resource("", "services"),
    "EndpointSlice": Resource("discovery.k8s.io", "endpointslices"),
    "Namespace": Resource("", "namespaces"),
}


def shop(web: dict[str, Any], spare: dict[str, Any]) -> list[dict[str, Any]]:
    """A shop with a stand-by, and where both answer."""
    return [
        ingress_class(),
        ingress("shop", rule(HOST, "/", "web:80"), annotations=STANDBY),
        service("web"),
        web,
        service("spare"),
        spare,
    ]


async def refused(seaway: Up, *arguments: str) -> str:
    """The one sentence that says why not."""
    code, output, errors = await seaway.command_output("failover", *arguments)
    assert (code, output) == (1, "")
    assert errors.startswith("seaway: ")
    assert len(errors.splitlines()) == 1
    return errors


async def switch_and_back(seaway: Up, told: Callable[[], Awaitable[bool]], *more: str) -> None:
    """Everything that an operator sees."""
    await seaway.until(HOST, "web")
    assert await seaway.command_output("failover", "on", "default/shop", "--reason", "db moves", *more) == (
        0,
        "default/shop: requests go to Service spare\n",
        "",
    )
    await seaway.until(HOST, "spare")
    await wait_until(told, within=SOON)

    async def raised() -> bool:
        return "requests of Ingress default/shop go to its stand-by" in (await seaway.command_output("alerts"))[1]

    await wait_until(raised, within=SOON)
    code, listed, _ = await seaway.command_output("failover", "list")
    assert code == 0
    assert listed.splitlines()[1].split()[:7] == ["default", "shop", "spare", "manual", "stand-by", "db", "moves"]
    assert (await seaway.command_output("failover", "off", "default/shop", *more))[0] == 0
    await seaway.until(HOST, "web")

    async def over() -> bool:
        return (await seaway.command_output("alerts"))[1].splitlines()[1:] == []

    await wait_until(over, within=SOON)
    assert (await seaway.command_output("failover", "list"))[1].splitlines()[1].split() == [
        *("default", "shop", "spare", "manual", "normal")
    ]


async def test_in_a_folder_of_manifests(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    bare = ingress("bare", rule("bare.example", "/", "web:80"))
    async with backend("web") as web, backend("spare") as spare:
        slices = [endpoint_slice(name, "127.0.0.1", port=port) for name, port in (("web", web), ("spare", spare))]
        write(folder / "shop.yaml", [*shop(*slices), bare])
        await in_a_folder(tmp_path, folder)


async def in_a_folder(tmp_path: Path, folder: Path) -> None:
    async with up(tmp_path, f"--manifests={folder}") as seaway:

        async def told() -> bool:
            return "db moves" in (await seaway.command_output("events"))[1]

        await switch_and_back(seaway, told)
        assert "'shop' names no Ingress; write NAMESPACE/INGRESS" in await refused(seaway, "on", "shop")
        assert "there is no Ingress default/none" in await refused(seaway, "on", "default/none")
        assert "default/bare has no stand-by Service; annotate it with" in await refused(seaway, "on", "default/bare")


@pytest.mark.root
async def test_in_a_cluster(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        backends = await stack.enter_async_context(backend_namespace(addresses=2))
        slices = []
        for address, name in zip(backends.addresses, ("web", "spare"), strict=True):
            await backends.serve(address, PORT, name)
            slices.append(endpoint_slice(name, address, port=PORT))
        await in_a_cluster(tmp_path, shop(*slices))


async def in_a_cluster(tmp_path: Path, objects: list[dict[str, Any]]) -> None:
    async with kube_api() as api, KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube:
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "seaway-edge"}}
        for raw in objects:
            await kube.create(PLACES[raw["kind"]], raw, namespace=raw["metadata"].get("namespace", ""))
        async with up(tmp_path, f"--kubeconfig={api.kubeconfig}", "--publish-status-address=192.0.2.7") as seaway:
            await seaway.until(HOST, "web")
            assert 'namespaces "seaway-edge" not found' in await refused(seaway, "on", "default/shop")
            await kube.create(PLACES["Namespace"], space)

            async def told() -> bool:
                events = [dict(raw) for raw in (await kube.list(EVENTS)).items]
                return any("db moves" in event["note"] for event in events if event["reason"] == "EmergencyService")

            await switch_and_back(seaway, told)
            seaway.kill("nats-server")
            assert (await seaway.command_output("failover", "on", "default/shop"))[0] == 0
            await seaway.until(HOST, "spare")
        switches = await kube.get(ObjectRef(Resource("", "configmaps"), "seaway-edge", "failover"))
        assert list(switches["data"]) == ["default.shop"]

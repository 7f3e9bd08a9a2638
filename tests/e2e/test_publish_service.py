"""Where the edges are behind a balancer, Ingresses show the addresses of its Service (`--publish-service`): on a real API server, with the
rights that deploy/ gives to the renderer.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from common.contracts.refs import ObjectRef, Resource
from common.kube.session import KubeSession
from common.kube.status import Writer
from common.testing import wait_until
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.nats import nats_server
from common.testing.objects import ingress, ingress_class, rule
from common.testing.ports import free_port
from tests.e2e.up_world import SOON
from tests.edge.world import prepare
from tests.integration.watcher_world import kubeconfig_of, watcher
from tests.packaging import ROOT

pytestmark = pytest.mark.timeout(180)

EDGE, RENDERER = "seaway-edge", "nginx-config-renderer"
INGRESSES = Resource("networking.k8s.io", "ingresses")
SERVICES = Resource("", "services")
SHOP = ObjectRef(INGRESSES, "default", "shop")
BALANCER = ObjectRef(SERVICES, EDGE, "edge")


@asynccontextmanager
async def renderer(directory: Path, log: Path, **settings: str) -> AsyncIterator[None]:
    """A renderer of its own, without an nginx: what Ingresses show does not depend on one."""
    prepare(directory)
    given = {"STATE": str(directory), "HTTP_PORT": str(free_port()), "HTTPS_PORT": str(free_port()), "LEASE_NAME": "", **settings}
    environment = os.environ | {f"SEAWAY_{name}": value for name, value in given.items()}
    with log.open("ab") as output:
        command = ("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "nginx_config_renderer")
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    try:
        yield
        assert process.returncode is None, f"the renderer has ended; see {log}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def kube(tmp_path: Path) -> AsyncIterator[KubeSession]:
    """A cluster with a Seaway whose Ingresses show the addresses of the Service `seaway-edge/edge`."""
    async with AsyncExitStack() as stack:
        api: KubeApi = await stack.enter_async_context(kube_api())
        kube = await stack.enter_async_context(KubeSession.from_kubeconfig(str(api.kubeconfig)))
        nats = await stack.enter_async_context(nats_server())
        await kube.create(Resource("", "namespaces"), {"metadata": {"name": EDGE}})
        await api.kubectl("apply", "--namespace", EDGE, "--filename", str(ROOT / "deploy" / RENDERER / "access.yaml"))
        own = tmp_path / "kubeconfig"
        own.write_text(kubeconfig_of(api, await api.token_for(EDGE, RENDERER)))
        await (await stack.enter_async_context(watcher(tmp_path, "w", api, nats))).ready()
        settings = {"KUBECONFIG": str(own), "BUS__URL": nats.url, "PUBLISH_SERVICE": f"{EDGE}/edge"}
        await stack.enter_async_context(renderer(tmp_path / "edge", tmp_path / "renderer.log", **settings))
        yield kube


async def shows(kube: KubeSession, *addresses: dict[str, str]) -> None:
    """Waits until the Ingress shows exactly these."""
    last: list[Any] = []

    async def does() -> bool:
        last[:] = (await kube.get(SHOP))["status"]["loadBalancer"].get("ingress", [])
        return last == [*addresses]

    try:
        await wait_until(does, within=SOON)
    except AssertionError:
        raise AssertionError(f"{SHOP} shows {last}, not {addresses}") from None


async def test_ingresses_show_the_addresses_of_the_service_before_the_edges_and_follow_it(kube: KubeSession) -> None:
    ports = [{"name": "http", "port": 80}]
    await kube.create(SERVICES, {"metadata": {"name": "edge"}, "spec": {"type": "LoadBalancer", "ports": ports}}, namespace=EDGE)
    await kube.create(Resource("networking.k8s.io", "ingressclasses"), ingress_class())
    await kube.create(INGRESSES, ingress("shop", rule("shop.example", "/", "web:80")), namespace="default")
    balancer = Writer(kube, "balancer")
    await balancer.patch_status(BALANCER, {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "edge.example"}]}})
    await shows(kube, {"ip": "192.0.2.9"}, {"hostname": "edge.example"})

    await balancer.patch_status(BALANCER, {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}})
    await shows(kube, {"ip": "192.0.2.10"})

    spec = {"spec": {"externalIPs": ["198.51.100.1"], "ports": ports}}
    await kube.apply(BALANCER, spec, manager="operator", force=True)
    await shows(kube, {"ip": "192.0.2.10"}, {"ip": "198.51.100.1"})

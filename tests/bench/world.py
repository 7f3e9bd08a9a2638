"""The world that edges are measured in: one API server with sites, and one HTTP server that stands for all of their pods.

A site is a host with an Ingress, a Service and an EndpointSlice of three addresses. All addresses lead to one bare nginx in a network
namespace, which answers with the address that it was asked at; so an answer tells which endpoint gave it, and costs little. The class of
the ingresses names Traefik's controller, since that cannot be configured; Seaway's can.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from common.contracts.refs import ObjectRef, Resource
from common.kube.session import KubeSession
from common.testing.authority import Issued
from common.testing.kubernetes import BackendNamespace, KubeApi, backend_namespace, kube_api
from common.testing.kubernetes.child import Child
from common.testing.objects import tls_secret
from common.testing.waiting import wait_until
from tests.bench.complaints import Complaints, complaints
from tests.bench.effort import program
from tests.bench.visitor import Answer

CLASS: Final = "bench"
CONTROLLER: Final = "traefik.io/ingress-controller"
NAMESPACE: Final = "default"
PORT: Final = 8080
TRIPLES: Final = 2  # disjoint sets of three addresses, between which a site is moved

SERVICES: Final = Resource("", "services")
SLICES: Final = Resource("discovery.k8s.io", "endpointslices")
INGRESSES: Final = Resource("networking.k8s.io", "ingresses")
SECRETS: Final = Resource("", "secrets")
NAMESPACES: Final = Resource("", "namespaces")
CONFIGMAPS: Final = Resource("", "configmaps")
CLASSES: Final = Resource("networking.k8s.io", "ingressclasses")

_WRITERS: Final = 4  # objects that are made at a time

_BACKEND: Final = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {
        listen %d backlog=4096;
        return 200 "$server_addr\\n";
    }
}
"""


class World:
    """An API server, the backends, and the sites that are there."""

    def __init__(self, api: KubeApi, kube: KubeSession, addresses: Sequence[str]) -> None:
        self.kubeconfig = api.kubeconfig
        self.addresses = tuple(addresses)
        self.sites: list[str] = []
        self._kube = kube
        self._triple: dict[str, int] = {}

    async def grow(self, sites: int) -> None:
        """Makes sites until there are that many."""
        wanted = [f"site-{number:05}" for number in range(len(self.sites), sites)]
        gate = asyncio.Semaphore(_WRITERS)

        async def make(site: str) -> None:
            async with gate:
                await self.add_backend(site)
                await self.add_ingress(site)

        async with asyncio.TaskGroup() as group:
            for site in wanted:
                group.create_task(make(site))
        self.sites += wanted

    async def add_backend(self, site: str) -> None:
        """Makes the Service and its endpoints."""
        self._triple[site] = 0
        await self._kube.create(SERVICES, service(site), namespace=NAMESPACE)
        await self._kube.create(SLICES, endpoint_slice(site, self._addresses(0)), namespace=NAMESPACE)

    async def add_ingress(self, site: str) -> None:
        """Makes the Ingress."""
        await self._kube.create(INGRESSES, ingress(site), namespace=NAMESPACE)

    async def add_bad_ingress(self, name: str) -> None:
        """Makes an Ingress whose annotations, Service and Secret are all wrong, and which wants the first site's host too."""
        wrong = {f"nginx.ingress.kubernetes.io/{key}": "${x};" for key in ("proxy-body-size", "canary-weight", "upstream-hash-by")}
        made = ingress(name)
        made["metadata"]["annotations"] = wrong
        made["spec"]["tls"] = [{"hosts": [host(name)], "secretName": "nobody"}]
        made["spec"]["rules"] += ingress("site-00000")["spec"]["rules"]
        await self._kube.create(INGRESSES, made, namespace=NAMESPACE)

    async def add_lost_ingress(self, name: str) -> None:
        """Makes an Ingress whose Service does not exist."""
        await self._kube.create(INGRESSES, ingress(name), namespace=NAMESPACE)

    def complaints(self) -> AbstractAsyncContextManager[Complaints]:
        """Listens to what is told of the objects here."""
        return complaints(self._kube, NAMESPACE)

    async def secure(self, site: str, issued: Issued) -> None:
        """Gives a site a certificate, and leaves HTTP to it too."""
        secret = tls_secret(site, issued)
        await self._kube.create(SECRETS, secret, namespace=NAMESPACE)
        ref = ObjectRef(INGRESSES, NAMESPACE, site)
        more = {
            "metadata": {"annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"}},
            "spec": {"tls": [{"hosts": [host(site)], "secretName": site}]},
        }
        await self._kube.patch(ref, more, manager="bench", kind="merge")

    async def remove(self, site: str) -> None:
        """Deletes the three objects of a site."""
        for resource in (INGRESSES, SERVICES, SLICES):
            await self._kube.delete(ObjectRef(resource, NAMESPACE, site))

    def elsewhere(self, site: str) -> tuple[Callable[[Answer], bool], Callable[[], Any]]:
        """How to tell that a site has moved to the next three addresses, and what moves it there: one PATCH."""
        triple = (self._triple[site] + 1) % TRIPLES
        addresses = self._addresses(triple)

        async def move() -> None:
            self._triple[site] = triple
            await self._kube.patch(
                ObjectRef(SLICES, NAMESPACE, site), {"endpoints": endpoints(addresses)}, manager="bench", kind="merge"
            )

        return (lambda answer: answer.status == 200 and answer.body in addresses), move

    async def prepare(self) -> None:
        """Makes the IngressClass, and the settings of our edge: like its peers it logs no requests."""
        await self._kube.create(CLASSES, {"metadata": {"name": CLASS}, "spec": {"controller": CONTROLLER}})
        await self._kube.create(NAMESPACES, {"metadata": {"name": "seaway-edge"}})
        settings = {"metadata": {"name": "nginx-config"}, "data": {"disable-access-log": "true"}}
        await self._kube.create(CONFIGMAPS, settings, namespace="seaway-edge")

    def _addresses(self, triple: int) -> tuple[str, ...]:
        return self.addresses[3 * triple : 3 * triple + 3]


def host(site: str) -> str:
    """The host that a site is asked by."""
    return f"{site}.bench.example"


def served(answer: Answer) -> bool:
    """Whether a backend gave that answer."""
    return answer.status == 200


def service(site: str) -> dict[str, Any]:
    """The Service of a site."""
    return {"metadata": {"name": site}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": PORT}]}}


def endpoint_slice(site: str, addresses: Sequence[str]) -> dict[str, Any]:
    """The endpoints of a site."""
    return {
        "metadata": {"name": site, "labels": {"kubernetes.io/service-name": site}},
        "addressType": "IPv4",
        "endpoints": endpoints(addresses),
        "ports": [{"name": "http", "port": PORT}],
    }


def endpoints(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Those addresses, ready."""
    return [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]


def ingress(site: str) -> dict[str, Any]:
    """The Ingress of a site."""
    backend = {"service": {"name": site, "port": {"name": "http"}}}
    rule = {"host": host(site), "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    return {"metadata": {"name": site}, "spec": {"ingressClassName": CLASS, "rules": [rule]}}


@asynccontextmanager
async def world(sites: int) -> AsyncIterator[World]:
    """A world of that many sites. Needs root, for the backends' namespace."""
    async with (
        backend_namespace(addresses=3 * TRIPLES) as backends,
        _one_server_for_all(backends),
        kube_api() as api,
        KubeSession.from_kubeconfig(str(api.kubeconfig), agent="seaway-bench") as kube,
    ):
        made = World(api, kube, backends.addresses)
        await made.prepare()
        await made.grow(sites)
        yield made


@asynccontextmanager
async def _one_server_for_all(backends: BackendNamespace) -> AsyncIterator[None]:
    nginx = program("nginx", "apt-get install nginx")
    with tempfile.TemporaryDirectory(prefix="seaway-bench-backend-") as directory:
        root = Path(directory)
        (root / "nginx.conf").write_text(_BACKEND % PORT)
        command = ["ip", "netns", "exec", backends.name, nginx, "-p", directory, "-c", "nginx.conf", "-e", "stderr"]
        server = Child("backend", command, root / "log")
        try:
            await server.start()
            await wait_until(lambda: _listens(server, backends.addresses[-1]))
            yield
        finally:
            await server.kill()


async def _listens(server: Child, address: str) -> bool:
    server.check()
    try:
        _, writer = await asyncio.open_connection(address, PORT)
    except OSError:
        return False
    writer.close()
    return True

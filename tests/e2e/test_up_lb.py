"""`seaway up --lb` on a machine between clients and endpoints: Services of a real API server are answered at addresses that it holds."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from common.contracts.refs import ObjectRef, Resource
from common.kube.session import KubeSession
from common.process import validate
from common.testing import wait_until
from common.testing.kubernetes import KubeApi, kube_api
from common.testing.objects import endpoint_slice
from tests.conftest import needs
from tests.e2e.up_world import SOON, Up, remains
from tests.lb.netns import Namespace
from tests.lb.world import Network, network

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(240),
    needs("haproxy"),
    needs("keepalived"),
    needs("nft", package="nftables"),
    needs("ip", package="iproute2"),
]
SERVICES = Resource("", "services")
SLICES = Resource("discovery.k8s.io", "endpointslices")
NAMESPACES = Resource("", "namespaces")
NODES = Resource("", "nodes")
POOLS = ObjectRef(Resource("", "configmaps"), "seaway-edge", "lb-pools")
A, B = "10.82.0.10", "10.82.0.11"
POOL = "10.81.0.128/28"


@contextlib.asynccontextmanager
async def door(space: Namespace, port: int) -> AsyncIterator[None]:
    """What listens on this machine's loopback is reached on that of `space` too."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, other_writer))
                group.create_task(_pipe(other_reader, writer))

    listening = await space.socket(socket.AF_INET)
    listening.bind(("127.0.0.1", port))
    server = await asyncio.start_server(pass_on, sock=listening)
    try:
        yield
    finally:
        server.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


class Edge(Up):
    """A `seaway up` on the machine in the middle."""

    def __init__(self, net: Network, api: KubeApi, directory: Path, *arguments: str) -> None:
        given = (f"--kubeconfig={api.kubeconfig}", "--node=edge-1", *arguments)
        super().__init__(directory, *given)
        self.net = net
        self.command = [*net.router.enter, *self.command]

    async def sees(self, *command: str) -> str:
        """What a program says on that machine."""
        return (await validate([*self.net.router.enter, *command], timeout=SOON)).output

    async def seaway(self, *arguments: str) -> str:
        """What a command about it says."""
        return await self.sees(*self.command[4:7], *arguments, "--data", str(self.data))

    async def answered(self, address: str, by: str) -> None:
        """Waits until a client is answered by that endpoint, or by nobody."""

        async def does() -> bool:
            return (await self.net.ask(address)).by == by

        try:
            await wait_until(does, within=SOON)
        except AssertionError:
            raise AssertionError(f"{address} is not answered by {by or 'nobody'}:\n{self.said[-3000:]}") from None


@pytest.fixture
async def net() -> AsyncIterator[Network]:
    async with network() as made:
        yield made


@pytest.fixture
async def api(net: Network) -> AsyncIterator[KubeApi]:
    async with kube_api() as api, door(net.router, int(api.url.rpartition(":")[2])):
        yield api


@pytest.fixture
async def kube(api: KubeApi) -> AsyncIterator[KubeSession]:
    async with KubeSession.from_kubeconfig(str(api.kubeconfig)) as kube:
        await kube.create(NODES, {"metadata": {"name": "edge-1", "labels": {"kubernetes.io/hostname": "edge-1"}}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "10.81.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "Well", "message": "well"}],
        }
        await kube.patch(ObjectRef(NODES, "", "edge-1"), {"status": status}, manager="test", subresource="status")
        yield kube


async def balanced(kube: KubeSession, name: str, *endpoints: str, ours: str | None = "seaway.dev/haproxy") -> None:
    """A Service of type LoadBalancer with its endpoints."""
    spec = {"type": "LoadBalancer", "ports": [{"name": "p80", "port": 80}]}
    spec |= {"loadBalancerClass": ours} if ours else {}
    await kube.create(SERVICES, {"metadata": {"name": name}, "spec": spec}, namespace="default")
    await kube.create(SLICES, endpoint_slice(name, *endpoints, port_name="p80"), namespace="default")


async def shown(kube: KubeSession, name: str) -> str:
    """The address that a Service shows, once it shows one."""
    found: list[dict[str, str]] = []

    async def there() -> bool:
        raw = await kube.get(ObjectRef(SERVICES, "default", name))
        found[:] = raw.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        return bool(found)

    await wait_until(there, within=SOON)
    assert found[0]["ipMode"] == "Proxy"
    return found[0]["ip"]


def another(edge: Edge, program: str, killed: int) -> bool:
    """Whether a program runs again."""
    found = edge.processes(program)
    return bool(found) and killed not in found


async def test_services_are_answered_at_addresses_that_the_machine_holds_and_nothing_is_left(
    net: Network, api: KubeApi, kube: KubeSession, tmp_path: Path
) -> None:
    await net.serve(A, B)
    edge = Edge(net, api, tmp_path, "--lb", f"--lb-pool={POOL}", "--lb-default", "--vip-interface=c0")
    await edge.start()
    try:
        await edge.ready(within=3 * SOON)  # seven programs, one after the other
        told = {line.split()[0]: line for line in edge.said.splitlines() if " | " not in line}
        assert f"addresses of {POOL}" in told["haproxy-lb"]
        assert "to port 14480" in told["haproxy"]
        assert "holds them on c0" in told["keepalived-vip"]

        await balanced(kube, "web", A)
        await balanced(kube, "plain", B, ours=None)
        web, plain = await shown(kube, "web"), await shown(kube, "plain")
        await edge.answered(web, A)
        await edge.answered(plain, B)
        assert f"inet {web}/32" in await edge.sees("ip", "address", "show", "dev", "c0")
        listed = await edge.seaway("lb", "list", "--default")
        assert re.search(rf"default +web +{re.escape(web)} ", listed), listed
        explained: list[str] = []

        async def whole() -> bool:
            explained[:] = (await edge.seaway("lb", "explain", "default/web")).splitlines()
            return all(any(words in line for line in explained) for words in ("held by node edge-1", f"{A}:8080, in use, well"))

        try:
            await wait_until(whole, within=SOON)
        except AssertionError:
            raise AssertionError("\n".join(explained)) from None

        for program in ("haproxy_lb", "/haproxy -W", "keepalived_vip"):
            killed = edge.processes(program)[0]
            os.kill(killed, signal.SIGKILL)
            await wait_until(partial(another, edge, program, killed), within=SOON)
            await edge.answered(web, A)

        began = asyncio.get_running_loop().time()
        assert await edge.end(signal.SIGINT) == 0
        print(f"ended after {asyncio.get_running_loop().time() - began:.1f} s")
        assert "Traceback" not in edge.said
    finally:
        if edge.code is None:
            os.kill(edge.pid, signal.SIGKILL)
            await edge.ended()
    # The keepalived of the holder that was killed ends by itself, and takes a second for it.
    await wait_until(lambda: remains(tmp_path) == [], within=SOON)
    assert await edge.sees("nft", "list", "ruleset") == ""
    assert web not in await edge.sees("ip", "address")
    assert "127.107" not in await edge.sees("ip", "address")
    assert "proto 83" not in await edge.sees("ip", "-6", "route", "show", "table", "all")
    assert await shown(kube, "web") == web, "the address is the Service's, also over an end"


async def refusal(seaway: Up, *before: str) -> str:
    """What it says when it ends at once; `before` is how it is started."""
    seaway.command = [*before, *seaway.command]
    await seaway.start()
    try:
        assert await seaway.ended(SOON) != 0
    finally:
        if seaway.code is None:
            os.kill(seaway.pid, signal.SIGKILL)
    assert "Traceback" not in seaway.said
    return " ".join(seaway.said.split())


def empty(directory: Path) -> Path:
    """A kubeconfig of no cluster, in a directory for everybody."""
    directory.chmod(0o777)
    path = directory / "kubeconfig"
    path.write_text("apiVersion: v1\nkind: Config\n")
    return path


def without(program: str) -> tuple[str, ...]:
    """How a command is started on a machine that has no such program."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
    return ("unshare", "--mount", "sh", "-c", f'mount --bind /dev/null "{path}"; exec "$@"', "sh")


LB = ("--lb", f"--lb-pool={POOL}")
NOBODY = ("unshare", "--user", "--map-user=65534")  # nobody here, who reads files as before: a checkout may be in root's home


@pytest.mark.parametrize(
    ("before", "given", "said"),
    [
        ((), ("--lb",), "--lb needs addresses to give; name a network with --lb-pool CIDR, such as 192.0.2.16/28"),
        ((), ("--vip-interface=lo",), "--lb-pool, --lb-default and --vip-interface are for load balancers; give --lb too"),
        ((), ("--lb", "--lb-pool=10.0.0.0/33"), "--lb-pool: '10.0.0.0/33': this is no address; write a network 192.0.2.0/28"),
        ((), (*LB, "--vip-interface=eth77"), "there is no interface eth77 here; --vip-interface may be one of lo"),
        (without("haproxy"), LB, "haproxy is missing; install it with: apt-get install haproxy"),
        (without("nft"), LB, "nft is missing; install it with: apt-get install nftables"),
        (without("keepalived"), (*LB, "--vip-interface=lo"), "keepalived is missing; install it with: apt-get install keepalived"),
        (NOBODY, LB, "load balancers change the kernel's tables, which is for root; run this as root, or leave --lb out"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_mend(
    tmp_path: Path, before: tuple[str, ...], given: tuple[str, ...], said: str
) -> None:
    assert said in await refusal(Up(tmp_path, f"--kubeconfig={empty(tmp_path)}", *given), *before)


async def test_a_folder_of_manifests_has_no_load_balancers(tmp_path: Path) -> None:
    seaway = Up(tmp_path, f"--manifests={tmp_path}", *LB)
    assert "a folder of manifests is none; use --kubeconfig FILE" in await refusal(seaway)


async def test_a_port_that_another_program_has_is_told_with_the_flag(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        seaway = Up(tmp_path, f"--kubeconfig={empty(tmp_path)}", *LB, f"--lb-port={port}")
        assert f"port {port} is taken by another program; free it, or choose another one with --lb-port" in await refusal(seaway)


async def test_pools_that_somebody_else_wrote_are_left_as_they_are(
    net: Network, api: KubeApi, kube: KubeSession, tmp_path: Path
) -> None:
    await kube.create(NAMESPACES, {"metadata": {"name": POOLS.namespace}})
    theirs = {"pools.yaml": "pools: []\n"}
    await kube.apply(POOLS, {"data": theirs}, manager="somebody")
    said = await refusal(Edge(net, api, tmp_path, *LB))
    assert "ConfigMap seaway-edge/lb-pools has other pools than --lb-pool says" in said
    assert "somebody" in said
    assert (await kube.get(POOLS))["data"] == theirs


async def test_a_machine_that_is_no_node_is_told_so(net: Network, api: KubeApi, kube: KubeSession, tmp_path: Path) -> None:
    said = await refusal(Edge(net, api, tmp_path, *LB, "--vip-interface=c0", "--node=elsewhere"))
    assert "the cluster has no Node elsewhere, and addresses are held by nodes; name this machine's with --node" in said

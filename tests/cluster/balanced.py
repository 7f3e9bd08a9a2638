"""Services of type LoadBalancer on real pods, at addresses that keepalived holds on the node.

The client is another machine of the nodes' network: a network namespace at the bridge that the node's address is on.
"""

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.applications import application, deploy
from tests.cluster.installed import PARTS, Installed, installed
from tests.lb.netns import Namespace, namespaces

from common.testing import wait_until
from common.testing.kubernetes.cluster import Cluster
from common.testing.kubernetes.machine import BRIDGE

LB = "daemonset/haproxy-lb"
VIPS = "daemonset/keepalived-vip"
EDGE = "seaway-edge"
ALL = PARTS | {LB: EDGE, VIPS: EDGE}
SOON = 30.0


class Balanced(Installed):
    """Seaway with load balancers, and a client in the nodes' network."""

    client: Namespace

    def inside(self, workload: str, container: str, command: str) -> str:
        """What a command in a container writes."""
        return self.cluster.kubectl("-n", EDGE, "exec", workload, "-c", container, "--", "sh", "-c", command).strip()

    def processes(self, workload: str, container: str, program: str) -> set[str]:
        """The numbers of a program's processes, without those that have ended and wait for somebody to take note of it."""
        alive = f"grep -qx {program} $each/comm && ! grep -q '^State:.Z' $each/status && echo ${{each#/proc/}}"
        return set(self.inside(workload, container, f"for each in /proc/[0-9]*; do {alive}; done; true").split())

    async def ask(self, address: str) -> str:
        """The pod that answers the client; nothing if nobody does."""
        made = await self.client.socket(socket.AF_INET)
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_connect(made, (address, 80))
                reader, writer = await asyncio.open_connection(sock=made)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
                writer.close()
        except (OSError, TimeoutError):
            made.close()
            return ""
        name = json.loads(answer.partition(b"\r\n\r\n")[2])["name"]
        assert isinstance(name, str)
        return name


def addresses(interface: str = BRIDGE) -> str:
    """The addresses of an interface of the node."""
    return subprocess.run(["ip", "-o", "address", "show", "dev", interface], capture_output=True, text=True, check=True).stdout


@contextmanager
def with_balancers(cluster: Cluster, overlay: Path) -> Iterator[Balanced]:
    """Seaway, of which every pod is ready, and a client at the node's bridge, without which that has no carrier."""
    second = cluster.addresses.second
    left = [path for path in (Path("/run/seaway"), Path("/var/lib/seaway")) if not path.exists()]
    try:
        with namespaces("n") as (client,):
            subprocess.run(["ip", "link", "add", "swlb0", "type", "veth", "peer", "name", "e0", "netns", client.name], check=True)
            subprocess.run(["ip", "link", "set", "swlb0", "master", BRIDGE, "up"], check=True)
            client.ip(f"address add 10.{second}.0.2/16 dev e0", "link set e0 up")
            with installed(cluster, overlay, ALL) as found:
                balanced = Balanced(found.cluster, found.overlay, found.parts)
                balanced.client = client
                yield balanced
    finally:
        for path in left:
            shutil.rmtree(path, ignore_errors=True)


def pools(cluster: Cluster) -> str:
    """The file of pools of an overlay, for the nodes' network of this cluster."""
    return f"pools: [{{name: public, addresses: [10.{cluster.addresses.second}.0.32/28]}}]\n"


def service(**more: Any) -> str:
    """A Service of type LoadBalancer for the pods of an application."""
    spec = {
        "type": "LoadBalancer",
        "loadBalancerClass": "seaway.dev/haproxy",
        "selector": {"app": "echo"},
        "ports": [{"port": 80, "targetPort": 8080}],
        **more,
    }
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "balanced"}, "spec": spec})


async def balanced(seaway: Balanced, namespace: str, **more: Any) -> str:
    """An application behind a Service of type LoadBalancer; the address that the Service shows, once it is answered there."""
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(f"{namespace}.example.org", **more))
    seaway.cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=service())
    shown: list[dict[str, Any]] = []

    def there() -> bool:
        raw = json.loads(seaway.cluster.kubectl("-n", namespace, "get", "service", "balanced", "-o", "json"))
        shown[:] = raw["status"]["loadBalancer"].get("ingress", [])
        return bool(shown)

    await wait_until(there, within=SOON)
    assert shown[0]["ipMode"] == "Proxy"
    address = str(shown[0]["ip"])
    await answered(seaway, address)
    return address


async def answered(seaway: Balanced, address: str) -> None:
    """Waits until the client is answered."""

    async def does() -> bool:
        return bool(await seaway.ask(address))

    try:
        await wait_until(does, within=SOON)
    except AssertionError:
        raise AssertionError(f"{address} is not answered:\n{addresses()}{seaway.logs()}") from None

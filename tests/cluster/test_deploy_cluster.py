"""`kubectl apply -k deploy/overlays/cluster-lb`: three servers of the bus, and balancers, on one node and without a StorageClass."""

import asyncio
import json
from collections.abc import Iterator

import pytest
import yaml
from tests.cluster.applications import answered_by, application, ask, deploy, running
from tests.cluster.balanced import Balanced, addresses, balanced, pools, with_balancers
from tests.cluster.installed import with_keys
from tests.cluster.load import load
from tests.conftest import needs

from common.bus.streams import ALL
from common.testing import wait_until
from common.testing.kubernetes.cluster import Cluster

pytestmark = [pytest.mark.root, pytest.mark.timeout(900), needs("nft", package="nftables")]

SERVERS = ("nats-0", "nats-1", "nats-2")
# What a cluster of one node cannot give: a node for each server, and volumes.
ONE_NODE = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: nats, namespace: seaway}
spec:
  template:
    spec:
      affinity: {$patch: delete}
      volumes: [{name: data, emptyDir: {}}]
  volumeClaimTemplates: []
"""


@pytest.fixture(scope="module")
def seaway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    """Seaway with three servers and balancers, all of them ready."""
    overlays = with_keys(tmp_path_factory.mktemp("seaway")) / "overlays"
    (overlays / "cluster-lb/pools.yaml").write_text(pools(cluster))
    overlay = overlays / "one-node"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../cluster-lb"], "patches": [{"patch": ONE_NODE}]}))
    with with_balancers(cluster, overlay) as found:
        yield found


def copies(seaway: Balanced) -> dict[str, int]:
    """Each stream, and how many servers have all of it, as the one that leads it knows."""
    found: dict[str, int] = {}
    for server in SERVERS:
        where = ("-n", "seaway", "exec", server, "--", "wget", "-qO-", "http://127.0.0.1:8222/jsz?streams=true")
        for account in json.loads(seaway.cluster.kubectl(*where)).get("account_details", ()):
            for stream in account["stream_detail"]:
                group = stream["cluster"]
                if group.get("leader") == server:
                    found[stream["name"]] = 1 + sum(peer.get("current", False) for peer in group.get("replicas", ()))
    return found


async def test_every_stream_is_on_three_servers(seaway: Balanced) -> None:
    await wait_until(lambda: copies(seaway) == {stream.name: 3 for stream in ALL}, within=30, every=0.5)


async def test_news_get_through_while_a_server_is_lost(seaway: Balanced, namespace: str) -> None:
    host = f"{namespace}.example.org"
    await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=1))
    await wait_until(lambda: ask(seaway.address, host)[0] == 200)
    async with load(seaway.address, host) as found:
        await asyncio.to_thread(
            seaway.cluster.kubectl, "-n", "seaway", "delete", "pod", "nats-1", "--force", "--grace-period=0", "--wait=false"
        )
        await asyncio.to_thread(deploy, seaway.cluster, namespace, application(host, replicas=2))
        await answered_by(found, await asyncio.to_thread(running, seaway.cluster, namespace))
    assert not found.lost
    await asyncio.to_thread(seaway.rolled_out)


async def test_a_load_balancer_is_answered_at_an_address_that_the_node_holds(seaway: Balanced, namespace: str) -> None:
    address = await balanced(seaway, namespace)
    assert f" {address}/32 " in addresses()

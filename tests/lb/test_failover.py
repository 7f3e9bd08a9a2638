"""What one node knows of clients, the next one knows too."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.model import Peer, Treatment
from haproxy_lb.runtime import Runtime
from tests.conftest import needs
from tests.lb.world import SOON, VIP, Balancer, network, running, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
ENDPOINTS = [f"10.82.0.{n}" for n in range(10, 15)]
SOURCES = [f"10.81.0.{n}" for n in range(2, 18)]
STICKY = Treatment(affinity=10800)


async def known(lb: Balancer) -> int:
    """How many clients a HAProxy knows."""
    runtime = Runtime(lb.directory / "admin.sock", lb.frame.tables)
    (answer,) = await runtime.ask(["show table seaway/a10800"])
    runtime.close()
    return answer.count(" key=")


async def answers(lb: Balancer) -> dict[str, str]:
    """Who answers each client."""
    return {source: (await lb.network.ask(source=source)).by for source in SOURCES}


@pytest.mark.parametrize("at_run_time", [False, True], ids=["peers-from-the-start", "peers-at-run-time"])
async def test_a_client_stays_with_its_endpoint_when_another_node_takes_over(
    tmp_path: Path, installation: Installation, at_run_time: bool
) -> None:
    peers = (Peer("one", "127.0.0.1", 14491), Peer("two", "127.0.0.1", 14492))

    def node(at: int) -> dict[str, Any]:
        others = tuple(peer for number, peer in enumerate(peers) if number != at)
        own = {"name": peers[at].name, "port": 14470 + at}
        return own if at_run_time else own | {"peer_port": peers[at].port, "peers": others}

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with network() as made:
        endpoints = await made.serve(*ENDPOINTS)
        web = service(endpoints, STICKY)
        # Each keeps what the kernel was told last; so they have their turns, as nodes that an address goes to.
        async with running(made, tmp_path / "two", installation, **node(1)) as two:
            first = [service(endpoints, STICKY, name="first", fronts=[(VIP, 90)])]
            await two.have(*first, web)
            async with running(made, tmp_path / "one", installation, **node(0)) as one:
                for node_of_them in (two, one) if at_run_time else ():
                    node_of_them.peers = peers
                await one.have(web)
                if at_run_time:
                    await two.have(*first, web)
                    one.applier._compare_at = 0  # the kernel was told of the other one last
                    await wait_until(lambda: one.applier.settled, within=SOON)
                assert one.applier.slots[web[0].key] != two.applier.slots[web[0].key], (
                    "their slots differ, which is nothing to clients"
                )
                before = await answers(one)
                assert set(before.values()) == set(ENDPOINTS)

                async def told() -> bool:
                    return await known(two) == len(SOURCES)

                await wait_until(told, within=SOON)
                one.running.cancel()
                await one.haproxy.stop(1, signal.SIGKILL)
                two.applier._compare_at = 0
                two.want(web)
                await wait_until(lambda: two.applier.settled, within=SOON)
                async with asyncio.timeout(SOON):
                    assert await answers(two) == before

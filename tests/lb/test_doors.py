"""Doors: plain fronts come in without a question, and nobody comes in by a door that is not his."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.process import validate
from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.doors import HALL, NETWORK, door
from haproxy_lb.model import Backend, Frontend, FrontKey, Treatment
from haproxy_lb.runtime import Lost, Runtime
from haproxy_lb.slots import Slot
from tests.conftest import needs
from tests.lb.world import SOON, VIP, VIP6, Answer, Balancer, balancer, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
A, B = "10.82.0.10", "10.82.0.11"
PATIENCE = 1.5  # seconds for what the kernel drops without a word; what it lets in is answered in milliseconds
DOOR = door(Slot("roundrobin-0"))


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation) as world:
        yield world


async def led(lb: Balancer, port: int = 80, address: str = VIP) -> str | None:
    """Where the kernel sends what arrives at a port of a floating address."""
    return (await lb.kernel.held() or {}).get(FrontKey(address, port))


async def test_a_front_that_gets_rules_leaves_the_door_and_its_connections_stay(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    await lb.have(service(endpoints))
    assert await led(lb) == DOOR
    _, reader, writer = await lb.network.connect(word="stay")
    for treatment in (Treatment(max_connections=5), Treatment(rate=9), Treatment(accept_proxy=("10.9.0.0/16",))):
        await lb.have(service(endpoints, treatment))
        assert await led(lb) == HALL
        assert (await lb.network.ask()).by == A
    await lb.have(service(endpoints, sources=("198.51.100.0/24",)))
    assert await lb.network.ask() == Answer()
    writer.write(b"on\n")
    assert await reader.readline() == b"on\n"
    await lb.have(service(endpoints))
    assert await led(lb) == DOOR
    assert (await lb.network.ask()).by == A


async def test_nobody_gets_in_whom_the_kernel_has_not_sent(lb: Balancer) -> None:
    """Whoever is on the same network can have packets brought here that are meant for any address."""
    await lb.have(service(await lb.network.serve(A)))
    lb.network.clients.ip(f"route add {NETWORK} via 10.81.0.1")
    assert (await lb.network.ask()).by == A
    for address in (DOOR, HALL):
        assert await lb.network.ask(address, lb.frame.port, within=PATIENCE) == Answer()


async def test_nobody_gets_in_by_ipv6_whom_the_kernel_has_not_sent(lb: Balancer) -> None:
    """Whoever knows a front can compute the address to which it leads."""
    await lb.have(service(await lb.network.serve(A)))
    lb.network.clients.ip(f"route add {lb.frame.inside} via fd81::1")
    assert (await lb.network.ask(VIP6)).by == A
    inside = await led(lb, address=VIP6)
    assert inside is not None
    assert await lb.network.ask(inside, lb.frame.port, within=PATIENCE) == Answer()


async def test_no_handshake_begins_at_a_door_to_which_no_front_leads(lb: Balancer) -> None:
    """What the kernel knows of a connection outlives the front, so a handshake could begin again and again."""
    endpoints = await lb.network.serve(A)
    await lb.have(service(endpoints))
    stale = (
        f"table ip stale {{ chain c {{ type nat hook prerouting priority -120; tcp dport 99 dnat to {DOOR}:{lb.frame.port}; }}; }}"
    )
    assert not (await validate([*lb.network.router.enter, "nft", stale], timeout=SOON)).code
    assert (await lb.network.ask(VIP, 99)).by == A
    await lb.have(service(endpoints, sources=("10.81.0.0/16",)))
    assert await lb.network.ask(VIP, 99, within=PATIENCE) == Answer()
    assert (await lb.network.ask()).by == A


async def test_whoever_waits_for_one_service_is_not_let_in_to_the_next_one(tmp_path: Path, installation: Installation) -> None:
    """HAProxy has all connections that it may have, so that the next ones wait at the door."""
    async with balancer(tmp_path, installation, max_connections=1) as lb:
        endpoints = await lb.network.serve(A)
        busy = service(endpoints, name="busy", fronts=[(VIP, 81)])
        await lb.have(service(endpoints, name="first"), busy)
        slot = lb.applier.slots[service([], name="first")[0].key]
        assert await led(lb) == door(slot)
        _, _, writer = await lb.network.connect(port=81, word="stay")
        waiting = asyncio.create_task(lb.network.ask())
        await wait_until(lambda: has_queued(lb), within=SOON)
        await lb.have(busy)
        await wait_until(waiting.done, within=PATIENCE)
        assert waiting.result() == Answer()
        await wait_until(lambda: not lb.held(slot) and slot not in lb.applier._configuration.written, within=SOON)
        await lb.have(busy, service(endpoints, name="next"))
        assert lb.applier.slots[service([], name="next")[0].key] == slot
        writer.close()

        async def answers() -> bool:
            return (await lb.network.ask()).by == A

        await wait_until(answers, within=SOON)


@asynccontextmanager
async def stale(lb: Balancer, service: tuple[Backend, Iterable[Frontend]]) -> AsyncIterator[Slot]:
    """Nothing is written any more; the files say that a slot is that of a service, which is gone, and in HAProxy it is nobody's."""
    await lb.have(service)
    slot = lb.applier.slots[service[0].key]
    await wait_until(lambda: f"{A}:" in (lb.directory / "haproxy.cfg").read_text(), within=SOON)
    async with lb.applier._configuration._lock:
        await lb.have()
        await wait_until(lambda: not lb.held(slot), within=SOON)
        yield slot


async def test_nobody_gets_a_slot_in_which_haproxy_would_begin_with_the_endpoints_of_another(lb: Balancer) -> None:
    a, b = await lb.network.serve(A, B)
    following = service([b], name="next")
    async with stale(lb, service([a], name="first")):
        await lb.have(following)
        assert (await lb.network.ask()).by == B
        worker = lb.worker
        async with lb.another_applier() as other:
            os.kill(worker, signal.SIGKILL)
            await wait_until(lambda: begun_after(lb, worker), within=SOON)
            assert await lb.network.ask() == Answer(), "it is asked for the next one, and begins with the first one's endpoints"
            other.want(lb.wanted)
            other.release()
            await wait_until(lambda: other.settled, within=SOON)
            assert (await lb.network.ask()).by == B


async def test_a_restarted_service_gives_nobody_a_slot_that_the_files_have_given_another(lb: Balancer) -> None:
    (a,) = await lb.network.serve(A)
    following = service([a], name="next")
    async with stale(lb, service([a], name="first")) as slot, lb.another_applier() as other:
        lb.want(following)
        other.want(lb.wanted)
        other.release()
        await wait_until(lambda: other.settled, within=SOON)
        assert other.slots[following[0].key] != slot
        assert (await lb.network.ask()).by == A


async def begun_after(lb: Balancer, worker: int) -> bool:
    """Whether another HAProxy serves than that one."""
    asking = Runtime(lb.directory / "admin.sock", lb.frame.tables)
    try:
        return (await asking.process()).pid != worker
    except Lost:
        return False
    finally:
        asking.close()


def has_queued(lb: Balancer) -> bool:
    """Whether a connection waits at a door for HAProxy to take it (ss(8): Recv-Q of a socket that listens)."""
    shown = subprocess.run(
        [*lb.network.router.enter, "ss", "-Hltn", "src", str(NETWORK)], check=True, timeout=SOON, capture_output=True, text=True
    )
    return any(line.split()[1] != "0" for line in shown.stdout.splitlines())

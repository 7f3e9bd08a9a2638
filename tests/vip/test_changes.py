"""Changes that an operator, a machine or a fault makes: none of them costs an address its one holder."""

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from common.testing import wait_until
from keepalived_vip.nodes import EXCLUDED
from tests.vip.conftest import OTHERS, VIP
from tests.vip.net import SOON, Machine
from tests.vip.world import Scene, edge, scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
MANY = [f"10.9.1.{number}" for number in range(1, 201)] + [f"10.9.2.{number}" for number in range(1, 101)]


def count(world: Scene, *events: str) -> int:
    return sum(event["event"] in events for told in world.crew.events.values() for event in told)


async def replanned(world: Scene, *addresses: str) -> None:
    """Wants these addresses, and waits until a node knows of it."""
    plans = count(world, "plan.taken")
    world.crew.vips(*addresses)
    await wait_until(lambda: count(world, "plan.taken") > plans, within=SOON)


def homes(world: Scene, machine: Machine) -> str:
    """Of how many groups a machine is the home."""
    rows = [re.split(r" {3,}", line) for line in world.crew.seaway("vip", "nodes").splitlines()]
    return next(row[4] for row in rows if row[0] == machine.name)


async def test_a_rolling_change_of_300_addresses_takes_nothing_from_those_that_stay(world: Scene) -> None:
    world.crew.vips(VIP, *MANY)
    await wait_until(lambda: world.settled(*MANY), within=2 * SOON)
    began = time.monotonic()
    world.crew.vips(VIP, *MANY[100:], *(f"10.9.3.{number}" for number in range(1, 101)))
    await wait_until(lambda: world.settled("10.9.3.1", "10.9.3.100"), within=SOON)
    await wait_until(lambda: not any(world.watch.holders(address) for address in MANY[:100]), within=SOON)
    await world.answered(time.monotonic())
    assert not any(world.watch.gaps(address, began) for address in [VIP, *MANY[100:]])
    assert not any(world.watch.overlaps(address, began) for address in [VIP, *MANY[100:]])
    await world.came_through(began, "100 of 300 addresses replaced", addresses=[VIP, *MANY[100:]])
    spread = [len([address for address in MANY[100:] if world.watch.holders(address) == {node.name}]) for node in world.crew.nodes]
    print(f"addresses a node: {spread}")


async def test_changes_that_come_fast_are_few_reloads(world: Scene) -> None:
    began, before = time.monotonic(), count(world, "configuration.installed")
    for number in range(150, 165):
        await replanned(world, VIP, *OTHERS, f"10.9.0.{number}")
    await wait_until(lambda: world.settled("10.9.0.164"), within=SOON)
    reloads, took = count(world, "configuration.installed") - before, time.monotonic() - began
    print(f"15 changes in {took:.1f} s: {reloads} reloads on 3 nodes")
    assert reloads <= 3 * (took + 2)  # one a second and node
    await world.came_through(began, "changes that come fast")


async def test_a_cordoned_node_hands_its_addresses_over(world: Scene) -> None:
    before = world.holder
    began = time.monotonic()
    world.crew.node(before, cordoned=True)
    await world.moved_from(before)
    await wait_until(lambda: world.settled() and not world.watch.held_by(before) & {VIP, *OTHERS}, within=SOON)
    world.crew.node(before)
    await wait_until(lambda: world.crew.health(before) == "0", within=SOON)
    await world.came_through(began, "cordoned")


async def test_a_node_that_is_not_ready_keeps_what_it_has_and_is_home_to_nothing(world: Scene) -> None:
    """Its kubelet is silent, which says nothing of the network: the addresses go when somebody better may take them."""
    before = world.holder
    began, plans = time.monotonic(), count(world, "plan.taken")
    world.crew.node(before, ready=False)
    await wait_until(lambda: count(world, "plan.taken") >= plans + 3, within=SOON)
    await wait_until(lambda: homes(world, before) == "0", within=SOON, every=0.5)
    assert world.holder == before
    await world.came_through(began, "not ready")


async def test_an_excluded_node_holds_nothing(world: Scene) -> None:
    before = world.holder
    world.crew.node(before, labels={EXCLUDED: ""})
    await world.moved_from(before)
    await wait_until(lambda: world.settled() and not world.watch.held_by(before) & {VIP, *OTHERS}, within=SOON)


async def test_a_node_whose_edge_is_dead_gives_its_addresses_up(world: Scene) -> None:
    before = world.holder
    began = time.monotonic()
    world.edges[before.name].close()
    await world.moved_from(before)
    await world.came_through(began, "edge dead")
    await wait_until(lambda: world.crew.health(before) == "-254" and "HeldBack" in world.crew.alerts(), within=SOON)
    assert "HeldBack" in world.crew.seaway("alerts")
    pid = world.crew.services[before.name].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)  # it cannot say any more that this is over; the next one does
    world.edges[before.name] = edge(before)
    await wait_until(lambda: world.crew.health(before) == "0" and "HeldBack" not in world.crew.alerts(), within=SOON)
    await wait_until(lambda: "HeldBack" not in world.crew.seaway("alerts"), within=SOON, every=0.5)
    await wait_until(world.settled, within=SOON)


async def test_nodes_whose_edges_are_all_dead_hold_on_and_tell(world: Scene) -> None:
    first = world.holder
    for machine in world.crew.nodes:
        world.edges[machine.name].close()
    await wait_until(lambda: {world.crew.health(machine) for machine in world.crew.nodes} == {"-100"}, within=SOON)
    await wait_until(world.settled, within=SOON)
    await wait_until(lambda: "HeldBack" in world.crew.alerts(), within=SOON)
    other = next(machine for machine in world.crew.nodes if machine != first)
    world.edges[other.name] = edge(other)
    await wait_until(lambda: world.watch.holders(VIP) == {other.name}, within=SOON)
    await wait_until(lambda: world.crew.health(first) == "-254" and world.settled(), within=SOON)


async def test_an_address_that_nobody_can_hold_is_told_and_so_is_its_end(world: Scene) -> None:
    for machine in world.crew.nodes:
        world.crew.node(machine, labels={EXCLUDED: ""})
    await wait_until(lambda: not world.watch.holders(VIP), within=SOON)
    await wait_until(lambda: "AddressNowhere" in world.crew.alerts(), within=SOON)
    assert "nobody holds it" in world.crew.seaway("vip", "list")
    assert "is excluded from load balancers" in world.crew.seaway("vip", "nodes")
    assert "AddressNowhere" in world.crew.seaway("alerts")
    world.crew.node(world.crew.nodes[0])
    await wait_until(lambda: world.settled(VIP) and "AddressNowhere" not in world.crew.alerts(), within=SOON)
    await wait_until(lambda: "AddressNowhere" not in world.crew.seaway("alerts"), within=SOON, every=0.5)


async def test_addresses_stay_and_fail_over_while_the_bus_is_away(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "fd09::100") as world:
        await world.crew.bus.stop(0)
        first = world.holder
        began = time.monotonic()
        world.crew.kill(first, signal.SIGTERM)
        second = await world.moved_from(first)
        await world.came_through(began, "failover without a bus")
        # A service that starts without a bus takes part with the plan that it kept.
        pid = world.crew.services[second.name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await world.moved_from(second)
        await wait_until(world.settled, within=2 * SOON)
        world.crew.kill(world.holder, signal.SIGTERM)
        await wait_until(world.settled, within=2 * SOON)


async def test_services_that_start_with_a_bus_of_no_use_hold_what_they_held(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "fd09::100", nodes=2) as world:
        crew = world.crew
        configuration = crew.directory / "nats.conf"
        configuration.write_text(configuration.read_text().partition("jetstream")[0])  # it answers, and has no streams
        for child in (crew.bus, *crew.services.values()):
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)

        def given_up(name: str) -> int:
            return sum(event["event"] == "bus.given_up" for event in crew.events[name])

        await wait_until(lambda: all(given_up(name) > 1 for name in crew.services), within=2 * SOON)
        await wait_until(lambda: world.settled(VIP, "fd09::100"), within=SOON)
        assert [child.starts for child in crew.services.values()] == [2, 2]


async def test_a_stale_address_is_swept_and_nobody_elses_is_touched(world: Scene) -> None:
    other = next(machine for machine in world.crew.nodes if machine != world.holder)
    other.space.ip("addr", "add", "10.9.0.50/32", "dev", "eth0")
    other.space.ip("addr", "add", "192.0.2.1/24", "dev", "lo")
    other.space.ip("addr", "add", f"{VIP}/32", "dev", "eth0")
    await wait_until(lambda: len(world.watch.holders(VIP)) == 2, within=SOON)
    await wait_until(lambda: len(world.watch.holders(VIP)) == 1, within=SOON)
    assert world.watch.holders("10.9.0.50") == {other.name}
    assert world.watch.holders("192.0.2.1") == {other.name}
    other.space.ip("addr", "del", "10.9.0.50/32", "dev", "eth0")
    other.space.ip("addr", "del", "192.0.2.1/24", "dev", "lo")


async def test_addresses_that_kube_proxy_has_on_an_interface_of_its_own_are_left_to_it(world: Scene) -> None:
    """As in its IPVS mode, with strictARP: every node has them, and nobody on the link hears of it."""
    lost = world.holder
    others = [machine for machine in world.crew.nodes if machine != lost]
    began = {name: len(told) for name, told in world.crew.events.items()}
    try:
        for machine in world.crew.nodes:
            machine.space.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
            machine.space.ip("link", "add", "kube-ipvs0", "type", "bridge")
            machine.space.ip("addr", "add", f"{VIP}/32", "dev", "kube-ipvs0")
            machine.space.ip("addr", "add", "fd09::100/128", "dev", "kube-ipvs0", "nodad")
        gone = time.monotonic()
        lost.space.ip("addr", "del", f"{VIP}/32", "dev", "eth0")
        for machine in others:
            machine.space.ip("addr", "add", f"{VIP}/32", "dev", "eth0")

        def came_back() -> bool:
            moments = [moment for moment in world.watch.moments if moment.at >= gone and moment.machine == lost.name]
            return any(moment.here and str(moment.address) == VIP for moment in moments)

        await wait_until(lambda: came_back() and world.watch.holders(VIP) == {lost.name}, within=SOON)
        for machine in world.crew.nodes:
            shown = machine.space.ip("addr", "show", "dev", "kube-ipvs0")
            assert f"{VIP}/32" in shown
            assert "fd09::100/128" in shown
            told = world.crew.events[machine.name][began[machine.name] :]
            assert not [event for event in told if event.get("address") == "fd09::100"]
    finally:
        for machine in world.crew.nodes:
            machine.space.run("ip", "link", "del", "kube-ipvs0")
            machine.space.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")


async def test_an_address_that_a_stranger_has_too_is_told_with_where_and_so_is_its_end(world: Scene) -> None:
    stranger = world.crew.client
    for address in (f"{VIP}/24", "fd09::100/64"):
        stranger.space.ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    mac = stranger.space.ip("-br", "link", "show", "dev", "eth0").split()[2]

    def told(*addresses: str) -> bool:
        alerts = [event for events in world.crew.events.values() for event in events if event["event"] == "alert"]
        return all(any(f"{address} (at {mac})" in event["summary"] for event in alerts) for address in addresses)

    await wait_until(lambda: told(VIP, "fd09::100"), within=SOON)
    assert not told("10.9.0.101")
    stranger.space.ip("addr", "del", f"{VIP}/24", "dev", "eth0")
    stranger.space.ip("addr", "del", "fd09::100/64", "dev", "eth0")
    await wait_until(lambda: "DuplicateAddress" not in world.crew.alerts(), within=2 * SOON)


async def test_an_address_that_somebody_removes_comes_back(world: Scene) -> None:
    began = time.monotonic()
    world.holder.space.ip("addr", "del", f"{VIP}/32", "dev", "eth0")
    await wait_until(lambda: world.watch.gaps(VIP, began) and world.settled(), within=SOON)
    await world.came_through(began, "an address removed")


async def test_a_node_that_joins_takes_nothing_twice(tmp_path: Path) -> None:
    four = (VIP, "10.9.0.101", "10.9.0.102", "10.9.0.103")
    async with scene(tmp_path, *four, PREEMPT_DELAY="1") as world:
        newcomer = next(machine for machine in world.crew.nodes if machine != world.holder)
        (world.crew.manifests / f"node-{newcomer.number}.json").unlink()
        await wait_until(lambda: world.crew.health(newcomer) == "-254", within=SOON)
        await wait_until(lambda: world.settled(*four), within=SOON)
        began = time.monotonic()
        world.crew.node(newcomer)
        await wait_until(lambda: world.crew.health(newcomer) == "0", within=SOON)
        await wait_until(lambda: any(newcomer.name in world.watch.holders(address) for address in four), within=SOON)
        await wait_until(world.settled, within=SOON)
        await world.came_through(began, "a node joins")


async def test_a_starved_machine_leaves_no_address_without_a_holder_nor_with_two(world: Scene) -> None:
    world.crew.vips(VIP, *MANY)
    await wait_until(lambda: world.settled(*MANY), within=2 * SOON)
    before = count(world, "address.held", "address.released")
    began = time.monotonic()
    hogs = [await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(8)]
    try:
        await world.answered(began + 8)
    finally:
        for hog in hogs:
            hog.kill()
            await hog.wait()
    await wait_until(lambda: world.settled(VIP, *MANY), within=SOON)
    moved = count(world, "address.held", "address.released") - before
    await world.came_through(began, f"starved by 8 programs ({moved} addresses moved)", addresses=[VIP, *MANY])


async def test_addresses_that_go_home_are_away_for_a_moment(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, PREEMPT_DELAY="2") as world:
        rows = [re.split(r" {3,}", line) for line in world.crew.seaway("vip", "list").splitlines()]
        home = world.machine(next(row[5] for row in rows if row[0] == VIP))
        await wait_until(lambda: world.watch.holders(VIP) == {home.name}, within=SOON)
        world.crew.kill(home, signal.SIGTERM)
        await world.moved_from(home)
        began = time.monotonic()
        await wait_until(lambda: world.watch.holders(VIP) == {home.name}, within=SOON)
        await world.came_through(began, "planned move")

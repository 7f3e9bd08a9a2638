"""Changes that an operator, a machine or a fault makes: none of them costs an address its one holder."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from common.testing import wait_until
from keepalived_vip.nodes import EXCLUDED
from tests.vip.world import SOON, Scene, edge, scene

VIP = "10.9.0.100"
LONG = 5.0
MANY = [f"10.9.1.{number}" for number in range(1, 201)] + [f"10.9.2.{number}" for number in range(1, 101)]


def transitions(world: Scene) -> int:
    return sum(event["event"] in {"address.held", "address.released"} for events in world.crew.events.values() for event in events)


async def test_a_rolling_change_of_300_addresses_takes_nothing_from_those_that_stay(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *MANY) as world:
        began = time.monotonic()
        world.crew.vips(VIP, *MANY[100:], *(f"10.9.3.{number}" for number in range(1, 101)))
        await wait_until(lambda: world.settled("10.9.3.1", "10.9.3.100"), within=SOON)
        await wait_until(lambda: not any(world.watch.holders(address) for address in MANY[:100]), within=SOON)
        await world.answered(time.monotonic())
        assert not any(world.watch.gaps(address, began) for address in [VIP, *MANY[100:]])
        assert not any(world.watch.overlaps(address, began) for address in [VIP, *MANY[100:]])
        await world.outage(began, "100 of 300 addresses replaced")
        spread = [
            len([address for address in MANY[100:] if world.watch.holders(address) == {node.name}]) for node in world.crew.nodes
        ]
        print(f"addresses a node: {spread}")


async def test_a_cordoned_node_hands_its_addresses_over(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "fd09::100") as world:
        before = world.holder
        began = time.monotonic()
        world.crew.node(before, cordoned=True)
        await world.moved_from(before)
        assert await world.outage(began, "cordoned") < LONG
        await wait_until(lambda: world.settled(VIP, "fd09::100"), within=SOON)
        world.crew.node(before)
        await wait_until(lambda: world.crew.health(before) == "0", within=SOON)
        assert not world.watch.overlaps(VIP, time.monotonic())


async def test_an_excluded_node_holds_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP) as world:
        before = world.holder
        world.crew.node(before, labels={EXCLUDED: ""})
        await world.moved_from(before)
        await wait_until(lambda: world.settled(VIP), within=SOON)


async def test_a_node_whose_edge_is_dead_gives_its_addresses_up(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "fd09::100", EDGES='["tcp:127.0.0.1:9000"]') as world:
        before = world.holder
        began = time.monotonic()
        world.edges[before.name].close()
        await world.moved_from(before)
        assert await world.outage(began, "edge dead") < LONG
        await wait_until(lambda: world.crew.health(before) == "-254" and "HeldBack" in world.crew.alerts(), within=SOON)
        world.edges[before.name] = edge(before)
        await wait_until(lambda: world.crew.health(before) == "0" and "HeldBack" not in world.crew.alerts(), within=SOON)
        await wait_until(lambda: world.settled(VIP, "fd09::100"), within=SOON)


async def test_nodes_whose_edges_are_all_dead_hold_on_and_tell(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "fd09::100", nodes=2, EDGES='["tcp:127.0.0.1:9000"]') as world:
        first = world.holder
        for machine in world.crew.nodes:
            world.edges[machine.name].close()
        await wait_until(lambda: [world.crew.health(machine) for machine in world.crew.nodes] == ["-100", "-100"], within=SOON)
        await wait_until(lambda: world.settled(VIP, "fd09::100"), within=SOON)
        await wait_until(lambda: "HeldBack" in world.crew.alerts(), within=SOON)
        other = next(machine for machine in world.crew.nodes if machine != first)
        world.edges[other.name] = edge(other)
        await wait_until(lambda: world.watch.holders(VIP) == {other.name}, within=SOON)
        await wait_until(lambda: world.crew.health(first) == "-254" and world.settled(VIP, "fd09::100"), within=SOON)


async def test_an_address_that_nobody_can_hold_is_told_and_so_is_its_end(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, nodes=2) as world:
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
        os.kill(world.crew.pid(first), signal.SIGTERM)
        second = await world.moved_from(first)
        assert await world.outage(began, "failover without a bus") < LONG
        # A service that starts without a bus takes part with the plan that it kept.
        pid = world.crew.services[second.name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await world.moved_from(second)
        await wait_until(lambda: world.settled(VIP, "fd09::100"), within=2 * SOON)
        os.kill(world.crew.pid(world.holder), signal.SIGTERM)
        await wait_until(lambda: world.settled(VIP, "fd09::100"), within=2 * SOON)


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


async def test_a_stale_address_is_swept_and_nobody_elses_is_touched(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, STALE_AFTER="1") as world:
        other = next(machine for machine in world.crew.nodes if machine != world.holder)
        other.space.ip("addr", "add", "10.9.0.50/32", "dev", "eth0")
        other.space.ip("addr", "add", "192.0.2.1/24", "dev", "lo")
        other.space.ip("addr", "add", f"{VIP}/32", "dev", "eth0")
        await wait_until(lambda: len(world.watch.holders(VIP)) == 2, within=SOON)
        await wait_until(lambda: len(world.watch.holders(VIP)) == 1, within=SOON)
        assert world.watch.holders("10.9.0.50") == {other.name}
        assert world.watch.holders("192.0.2.1") == {other.name}


async def test_an_address_that_a_stranger_has_too_is_told_with_where_and_so_is_its_end(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "fd09::100", "10.9.0.101", nodes=2, PROBE_INTERVAL="1") as world:
        stranger = world.crew.client
        for address in (f"{VIP}/24", "fd09::100/64"):
            stranger.space.ip("addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
        mac = stranger.space.ip("-br", "link", "show", "dev", "eth0").split()[2]
        summaries = lambda: {  # noqa: E731 it is asked again and again
            event["summary"]
            for events in world.crew.events.values()
            for event in events
            if event["event"] == "alert" and event["alert"] == "DuplicateAddress"
        }
        for address in (VIP, "fd09::100"):
            await wait_until(
                lambda address=address: any(f"{address} (at {mac})" in summary for summary in summaries()), within=SOON
            )
        assert not any("10.9.0.101" in summary for summary in summaries())
        stranger.space.ip("addr", "del", f"{VIP}/24", "dev", "eth0")
        stranger.space.ip("addr", "del", "fd09::100/64", "dev", "eth0")
        await wait_until(lambda: "DuplicateAddress" not in world.crew.alerts(), within=2 * SOON)


async def test_an_address_that_somebody_removes_comes_back(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, "10.9.0.101", STALE_AFTER="1") as world:
        holder = world.holder
        holder.space.ip("addr", "del", f"{VIP}/32", "dev", "eth0")
        await wait_until(lambda: not world.watch.holders(VIP), within=SOON)
        await wait_until(lambda: world.settled(VIP, "10.9.0.101"), within=SOON)


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
        await world.answered(time.monotonic())
        overlaps = [span for address in four for span in world.watch.overlaps(address, began)]
        longest = max((after - before for before, after in overlaps), default=0.0)
        print(f"a node joins: an address held twice for {longest * 1000:.1f} ms at the most")
        assert longest < 1
        await world.outage(began, "a node joins")


async def test_masters_stay_masters_while_the_machine_is_starved(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *MANY) as world:
        before = transitions(world)
        began = time.monotonic()
        hogs = [await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass") for _ in range(8)]
        try:
            await world.answered(began + 8)
        finally:
            for hog in hogs:
                hog.kill()
                await hog.wait()
        await world.outage(began, f"starved by 8 programs ({transitions(world) - before} addresses moved)")
        await wait_until(lambda: world.settled(VIP, *MANY), within=SOON)


async def test_addresses_that_go_home_are_away_for_a_moment(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, PREEMPT_DELAY="2") as world:
        home = next(node for node in world.crew.nodes if f"{VIP}/32" in world.crew.configuration(node) and node.name == "node-1")
        await wait_until(lambda: world.watch.holders(VIP) == {home.name}, within=SOON)
        os.kill(world.crew.pid(home), signal.SIGTERM)
        await world.moved_from(home)
        began = time.monotonic()
        await wait_until(lambda: world.watch.holders(VIP) == {home.name}, within=SOON)
        assert await world.outage(began, "planned move") < LONG
        overlaps = world.watch.overlaps(VIP, began)
        print(f"planned move: held twice for {sum(after - before for before, after in overlaps) * 1000:.1f} ms")

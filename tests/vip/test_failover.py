"""What a client notices when a node, its cable, or keepalived fails; and that two nodes never go on holding one address."""

import os
import signal
import time
from pathlib import Path

from common.testing import wait_until
from tests.vip.world import SOON, Scene, scene

VIP = "10.9.0.100"
OTHERS = ("10.9.0.101", "10.9.0.102", "fd09::100")
LONG = 5.0  # what no machine is slow enough for


async def single(world: Scene) -> None:
    await wait_until(lambda: world.settled(VIP, *OTHERS), within=SOON)


async def test_a_node_that_crashes_is_replaced(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *OTHERS) as world:
        lost = world.holder
        began = time.monotonic()
        world.crew.net.pull(lost)
        for which in ("keepalived", "vrrp"):
            os.kill(world.crew.pid(lost, which), signal.SIGKILL)
        assert await world.moved_from(lost) != lost
        assert await world.outage(began, "crash") < LONG


async def test_a_cable_that_is_pulled_loses_the_addresses_to_others_and_plugged_in_again_takes_none_twice(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *OTHERS) as world:
        lost = world.holder
        began = time.monotonic()
        world.crew.net.pull(lost)
        await world.moved_from(lost)
        assert await world.outage(began, "cable pulled") < LONG
        await single(world)
        again = time.monotonic()
        world.crew.net.plug(lost)
        await world.answered(again + 1)
        await single(world)
        assert await world.outage(again, "cable plugged in") < LONG
        assert not world.watch.overlaps(VIP, again)


async def test_keepalived_that_is_told_to_end_hands_over_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *OTHERS) as world:
        lost = world.holder
        began = time.monotonic()
        os.kill(world.crew.pid(lost), signal.SIGTERM)
        await world.moved_from(lost)
        assert await world.outage(began, "SIGTERM") < LONG
        await single(world)


async def test_a_service_that_ends_hands_over_and_takes_part_again_when_it_is_back(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *OTHERS) as world:
        lost = world.holder
        began = time.monotonic()
        pid = world.crew.services[lost.name].pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await world.moved_from(lost)
        assert await world.outage(began, "service ended") < LONG
        await wait_until(lambda: world.crew.services[lost.name].starts > 1, within=SOON)
        await single(world)


async def test_keepalived_whose_parent_is_killed_leaves_no_address_behind(tmp_path: Path) -> None:
    await _killed(tmp_path, "SIGKILL of the parent", "keepalived")


async def test_keepalived_whose_child_is_killed_leaves_no_address_behind(tmp_path: Path) -> None:
    await _killed(tmp_path, "SIGKILL of the child", "vrrp")


async def test_keepalived_of_which_both_are_killed_leaves_no_address_behind(tmp_path: Path) -> None:
    await _killed(tmp_path, "SIGKILL of both", "keepalived", "vrrp")


async def _killed(tmp_path: Path, what: str, *which: str) -> None:
    async with scene(tmp_path, VIP, *OTHERS) as world:
        lost = world.holder
        began = time.monotonic()
        for pid in [world.crew.pid(lost, one) for one in which]:
            os.kill(pid, signal.SIGKILL)
        await world.answered(began + 1)
        await single(world)
        assert await world.outage(began, what) < LONG
        overlaps = world.watch.overlaps(VIP, began)
        print(f"{what}: held twice for {sum(after - before for before, after in overlaps) * 1000:.0f} ms")
        assert sum(after - before for before, after in overlaps) < LONG


async def test_two_masters_of_a_partition_are_one_again_when_it_heals(tmp_path: Path) -> None:
    async with scene(tmp_path, VIP, *OTHERS) as world:
        first = world.holder
        world.crew.net.mute(first)
        await wait_until(lambda: len(world.watch.holders(VIP)) > 1, within=SOON)
        await wait_until(lambda: "AddressTwice" in world.crew.alerts(), within=SOON)
        healed = time.monotonic()
        world.crew.net.unmute(first)
        await wait_until(lambda: len(world.watch.holders(VIP)) == 1, within=SOON)
        await world.answered(healed + 1)
        assert await world.outage(healed, "partition healed") < LONG
        await wait_until(lambda: "AddressTwice" not in world.crew.alerts(), within=SOON)

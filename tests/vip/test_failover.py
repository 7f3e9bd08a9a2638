"""What a client notices when a node, its cable, or keepalived fails; and that two nodes never go on holding one address."""

import os
import signal
import time

import pytest

from common.testing import wait_until
from tests.vip.net import SOON
from tests.vip.world import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_node_that_crashes_is_replaced(world: Scene) -> None:
    lost = world.holder
    began = time.monotonic()
    world.crew.net.pull(lost)
    world.crew.kill(lost, signal.SIGKILL, "keepalived", "vrrp")
    assert await world.moved_from(lost) != lost
    await world.came_through(began, "crash", besides=lost)


async def test_a_cable_that_is_pulled_costs_the_addresses_and_plugged_in_again_brings_none_back(world: Scene) -> None:
    lost = world.holder
    began = time.monotonic()
    world.crew.net.pull(lost)
    other = await world.moved_from(lost)
    await world.came_through(began, "cable pulled", besides=lost)
    await wait_until(world.settled, within=SOON)
    again = time.monotonic()
    world.crew.net.plug(lost)
    await world.answered(again + 1)
    await wait_until(world.settled, within=SOON)
    await world.came_through(again, "cable plugged in")
    assert world.holder == other


async def test_keepalived_that_is_told_to_end_hands_over_at_once(world: Scene) -> None:
    lost = world.holder
    began = time.monotonic()
    world.crew.kill(lost, signal.SIGTERM)
    await world.moved_from(lost)
    await wait_until(world.settled, within=SOON)
    await world.came_through(began, "SIGTERM")


async def test_a_service_that_ends_hands_over_and_takes_part_again_when_it_is_back(world: Scene) -> None:
    lost = world.holder
    service = world.crew.services[lost.name]
    before, began = service.starts, time.monotonic()
    assert service.pid is not None
    os.kill(service.pid, signal.SIGTERM)
    await world.moved_from(lost)
    await wait_until(lambda: service.starts > before, within=SOON)
    await wait_until(world.settled, within=SOON)
    await world.came_through(began, "service ended")


async def test_keepalived_whose_parent_is_killed_leaves_no_address_behind(world: Scene) -> None:
    await _killed(world, "SIGKILL of the parent", "keepalived")


async def test_keepalived_whose_child_is_killed_leaves_no_address_behind(world: Scene) -> None:
    await _killed(world, "SIGKILL of the child", "vrrp")


async def test_keepalived_of_which_both_are_killed_leaves_no_address_behind(world: Scene) -> None:
    await _killed(world, "SIGKILL of both", "keepalived", "vrrp")


async def _killed(world: Scene, what: str, *which: str) -> None:
    lost = world.holder
    began = time.monotonic()
    world.crew.kill(lost, signal.SIGKILL, *which)
    await world.answered(began + 1)
    await wait_until(world.settled, within=SOON)
    await world.came_through(began, what)


async def test_two_masters_of_a_partition_are_told_and_are_one_again_when_it_heals(world: Scene) -> None:
    first = world.holder
    world.crew.net.mute(first)
    await wait_until(lambda: len(world.watch.holders(world.probe.address)) > 1, within=SOON)
    await wait_until(lambda: {"AddressTwice", "DuplicateAddress"} <= world.crew.alerts(), within=2 * SOON)
    assert "held twice" in world.crew.seaway("vip", "list")
    healed = time.monotonic()
    world.crew.net.unmute(first)
    await wait_until(world.settled, within=SOON)
    await world.answered(healed + 1)
    await world.came_through(healed, "partition healed")
    await wait_until(lambda: not world.crew.alerts() & {"AddressTwice", "DuplicateAddress"}, within=2 * SOON)

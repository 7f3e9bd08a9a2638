"""What a client notices when a node, its cable, or keepalived fails; and that two nodes never go on holding one address."""

import os
import signal
import time
from pathlib import Path

import pytest

from common.testing import wait_until
from keepalived_vip.model import Instance, Layout
from keepalived_vip.render import Style, render
from tests.vip.conftest import VIP
from tests.vip.net import SOON
from tests.vip.world import Keepalived, Scene, running, scene

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


async def test_keepalived_that_cannot_run_is_told_and_swept_though_another_one_of_the_machine_speaks_vrrp(tmp_path: Path) -> None:
    """As where the API server has a floating address by a keepalived of its own."""
    broken, program = tmp_path / "broken", tmp_path / "keepalived-or-not"
    program.write_text(f'#!/bin/sh\n[ "$1" = -t ] || [ ! -e {broken} ] || exit 1\nexec keepalived "$@"\n')
    program.chmod(0o755)
    async with scene(tmp_path / "scene", VIP, "fd09::100", nodes=2, STALE_AFTER="1", KEEPALIVED=str(program)) as world:
        lost = world.holder
        other = Keepalived(lost, tmp_path / "other")
        other.configuration.write_text(
            render(Layout((Instance(0, 4, 50, 100, lost.v4, (), ()),)), Style("eth0", str(other.track_file)))
        )
        async with running(other):
            await wait_until(lambda: any("Entering MASTER STATE" in line for line in other.lines), within=SOON)
            broken.touch()
            world.crew.kill(lost, signal.SIGKILL, "vrrp", "keepalived")
            await world.moved_from(lost)
            await wait_until(world.settled, within=SOON)
            await wait_until(lambda: (lost.name, "KeepalivedDown") in world.crew.firing, within=SOON)
            broken.unlink()
            await wait_until(lambda: (lost.name, "KeepalivedDown") not in world.crew.firing, within=SOON)
            await wait_until(world.settled, within=SOON)


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

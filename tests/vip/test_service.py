"""The service on its nodes, with a real bus, watcher and keepalived: addresses come and go, and people are told."""

import os
import resource
import signal
import subprocess
import time

import pytest

from common.testing import wait_until
from tests.vip.conftest import OTHERS, VIP
from tests.vip.net import SOON
from tests.vip.world import Scene

pytestmark = pytest.mark.asyncio(loop_scope="session")
NEW = "10.9.0.110"
_RTTIME = 15  # RLIMIT_RTTIME


async def test_an_address_that_is_wanted_is_held_by_one_node_until_it_is_wanted_no_more(world: Scene) -> None:
    began = time.monotonic()
    world.crew.vips(VIP, *OTHERS, NEW, "fd09::110")
    await wait_until(lambda: world.settled(NEW, "fd09::110"), within=SOON)
    world.crew.vips(VIP, *OTHERS)
    await wait_until(lambda: not world.watch.floating() & {NEW, "fd09::110"}, within=SOON)
    assert not world.watch.overlaps(NEW, began)


async def test_operators_see_who_holds_an_address_and_each_of_its_moves(world: Scene) -> None:
    world.crew.vips(VIP, *OTHERS, NEW)
    await wait_until(lambda: world.settled(NEW), within=SOON)
    (first,) = world.watch.holders(NEW)

    def listed(holder: str) -> bool:
        rows = [line.split() for line in world.crew.seaway("vip", "list").splitlines()]
        return any(row[:3] == [NEW, "static/test", holder] and row[3].startswith("seaway-4-") for row in rows)

    await wait_until(lambda: listed(first), within=SOON, every=0.5)
    world.crew.kill(world.machine(first), signal.SIGTERM)
    await wait_until(lambda: bool(world.watch.holders(NEW) - {first}), within=SOON)
    (second,) = world.watch.holders(NEW) - {first}
    await wait_until(lambda: listed(second), within=SOON, every=0.5)
    world.crew.vips(VIP, *OTHERS)
    await wait_until(lambda: not world.watch.holders(NEW), within=SOON)

    def told() -> bool:
        said = [line for line in world.crew.seaway("events").splitlines() if f'"{NEW}"' in line]
        return all(any(f" {what} " in line and node in line for line in said) for what, node in moves)

    moves = [("held", first), ("released", first), ("held", second), ("released", second)]
    await wait_until(told, within=SOON, every=0.5)


async def test_keepalived_comes_before_other_programs_with_no_limit_to_its_time(world: Scene) -> None:
    if not real_time_is_permitted():
        pytest.skip("real-time priority is not permitted here")
    for machine in world.crew.nodes:
        for which in ("keepalived", "vrrp"):
            pid = world.crew.pid(machine, which)
            assert os.sched_getscheduler(pid) == os.SCHED_RR
            assert resource.prlimit(pid, _RTTIME) == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def real_time_is_permitted() -> bool:
    return subprocess.run(["chrt", "--rr", "1", "true"], check=False, capture_output=True).returncode == 0

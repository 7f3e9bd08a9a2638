"""The service on its nodes, with a real bus, watcher and keepalived: addresses come, spread, move and go, and people are told."""

import os
import signal
from pathlib import Path

from common.testing import wait_until
from tests.vip.world import SOON, Watch, crew


async def test_an_address_that_is_wanted_is_held_by_one_node(tmp_path: Path) -> None:
    async with crew(tmp_path, nodes=2) as world:
        with Watch(world.nodes) as watch:
            world.vips("10.9.0.100", "fd09::100")
            await wait_until(lambda: len(watch.holders("10.9.0.100")) == 1, within=SOON)
            await wait_until(lambda: len(watch.holders("fd09::100")) == 1, within=SOON)
            world.vips("10.9.0.101")
            await wait_until(lambda: len(watch.holders("10.9.0.101")) == 1 and not watch.holders("10.9.0.100"), within=SOON)
            assert not watch.overlaps("10.9.0.100", 0)


async def test_operators_see_who_holds_an_address_and_each_of_its_moves(tmp_path: Path) -> None:
    async with crew(tmp_path, nodes=2) as world:
        with Watch(world.nodes) as watch:
            world.vips("10.9.0.100")
            await wait_until(lambda: len(watch.holders("10.9.0.100")) == 1, within=SOON)
            (first,) = watch.holders("10.9.0.100")

            def listed(holder: str) -> bool:
                rows = [line.split() for line in world.seaway("vip", "list").splitlines()]
                return any(row[:4] == ["10.9.0.100", "static/test", holder, "seaway-4-0"] for row in rows)

            await wait_until(lambda: listed(first), within=SOON, every=0.5)
            lost = next(node for node in world.nodes if node.name == first)
            os.kill(world.pid(lost), signal.SIGTERM)
            await wait_until(lambda: watch.holders("10.9.0.100") - {first}, within=SOON)
            (second,) = watch.holders("10.9.0.100") - {first}
            await wait_until(lambda: listed(second), within=SOON, every=0.5)
            world.vips()
            await wait_until(lambda: not watch.holders("10.9.0.100"), within=SOON)

            def told() -> bool:
                said = [line for line in world.seaway("events").splitlines() if "10.9.0.100" in line]
                return all(any(what in line and node in line for line in said) for what, node in moves)

            moves = [("held", first), ("released", first), ("held", second), ("released", second)]
            await wait_until(told, within=SOON, every=0.5)
            nodes = world.seaway("vip", "nodes")
            assert all(node.name in nodes for node in world.nodes)

"""The service on three nodes, with a real bus, watcher and keepalived: addresses come, spread, move and go."""

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

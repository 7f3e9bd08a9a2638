"""What we believe of keepalived's reloads, held against keepalived."""

import random
import time
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from common.testing import wait_until
from common.testing.debian import Installation
from keepalived_vip.model import Address, Instance, Layout, Peer
from keepalived_vip.render import Style, anchor, render
from keepalived_vip.steps import reloaded, steps
from tests.vip.net import SOON, Watch, frames, heard_more, network
from tests.vip.world import Keepalived, running

POOL = [ip_address(f"10.9.0.{number}") for number in range(100, 112)]


def instance(number: int, *addresses: Address) -> Instance:
    return Instance(number, 4, 50 + number, 240, "10.9.0.1", (Peer("node-2", "10.9.0.2"),), tuple(sorted(addresses, key=int)))


def any_layout(chance: random.Random) -> Layout:
    places = {address: chance.choice([0, 1, 2, None]) for address in POOL}
    made = [instance(number, *(address for address, place in places.items() if place == number)) for number in range(3)]
    chance.shuffle(made)
    return Layout(tuple(made))


def held(watch: Watch) -> set[Address]:
    return {address for address in POOL if watch.holders(str(address))}


async def has(watch: Watch, wanted: Mapping[Address, str]) -> None:
    await wait_until(lambda: held(watch) == wanted.keys(), within=SOON)


async def test_keepalived_reloads_as_the_model_says(tmp_path: Path, installation: Installation) -> None:
    chance = random.Random(5)  # noqa: S311 the same walk each time
    with network(1) as net, Watch(net.machines) as watch:
        keepalived = Keepalived(net.machines[0], tmp_path, installation)
        style = Style("eth0", str(keepalived.track_file), preempt_delay=None)
        layout = any_layout(chance)
        believed = layout.holders
        keepalived.configuration.write_text(render(layout, style))
        async with running(keepalived):
            await has(watch, believed)
            lossy = 0
            for _ in range(25):
                new = any_layout(chance)
                believed = reloaded(believed, layout, new)
                lossy += believed.keys() != new.holders.keys()
                await keepalived.reload(render(new, style))
                await has(watch, believed)
                # What keepalived believes and what is there are different now; a fresh start makes them one again.
                layout = new
                if believed.keys() != new.holders.keys():
                    believed = await _settle(keepalived, watch, style, layout)
            assert lossy > 5  # the walk went where the trap is


async def _settle(keepalived: Keepalived, watch: Watch, style: Style, layout: Layout) -> dict[Address, str]:
    """Takes all addresses away, and gives them again."""
    empty = Layout(tuple(instance(one.group) for one in layout.instances))
    await keepalived.reload(render(empty, style))
    await wait_until(lambda: not held(watch), within=SOON)
    await keepalived.reload(render(layout, style))
    await has(watch, layout.holders)
    return dict(layout.holders)


async def test_a_move_in_steps_loses_no_address_and_none_for_long(tmp_path: Path, installation: Installation) -> None:
    chance = random.Random(6)  # noqa: S311 the same walk each time
    with network(1) as net, Watch(net.machines) as watch:
        keepalived = Keepalived(net.machines[0], tmp_path, installation)
        style = Style("eth0", str(keepalived.track_file), preempt_delay=None)
        layout = any_layout(chance)
        keepalived.configuration.write_text(render(layout, style))
        longest = 0.0
        async with running(keepalived):
            await has(watch, layout.holders)
            for _ in range(15):
                new = any_layout(chance)
                since = watch.moments[-1].at
                for step in steps(layout, new):
                    await keepalived.reload(render(step, style))
                await has(watch, new.holders)
                stayed = layout.holders.keys() & new.holders.keys()
                gaps = [after - before for address in stayed for before, after in watch.gaps(str(address), since + 1e-9)]
                longest = max([longest, *gaps])
                layout = new
            assert not any("Entering BACKUP" in line for line in keepalived.lines[20:])
        print(f"longest time without its address in a move between instances: {longest * 1000:.2f} ms")
        assert longest < 0.15


async def test_nodes_that_differ_in_their_addresses_have_one_master(tmp_path: Path, installation: Installation) -> None:
    """As they do during every change, for as long as it takes until all have it."""
    with network(2) as net, Watch(net.machines) as watch:
        programs = [Keepalived(machine, tmp_path / machine.name, installation) for machine in net.machines]
        style = Style("eth0", str(programs[0].track_file), preempt_delay=None)

        def text(number: int, *addresses: Address) -> str:
            here, there = net.machines[number], net.machines[1 - number]
            made = Instance(0, 4, 50, 240 - 40 * number, here.v4, (Peer(there.name, there.v4),), tuple(sorted(addresses, key=int)))
            return render(Layout((made,)), style)

        for number, program in enumerate(programs):
            program.configuration.write_text(text(number, POOL[0]))
        said = net.machines[1].space.enter(frames)
        async with running(*programs):
            await has(watch, dict.fromkeys(POOL[:1], ""))
            began = time.monotonic()
            (master,) = (int(name[-1]) - 1 for name in watch.holders(str(POOL[0])))
            for changed, addresses in ((master, POOL), (1 - master, POOL[:3])):
                await programs[changed].reload(text(changed, *addresses))
                heard = [0, 0]
                while heard[master] < 10:
                    await wait_until(partial(heard_more, said, heard), within=SOON)
            assert held(watch) == set(POOL)
            assert not any(watch.overlaps(str(address), began) for address in POOL)
            assert not watch.gaps(str(POOL[0]), began)
        said.close()


def test_the_anchor_of_an_instance_is_its_own() -> None:
    made = [Instance(number, family, number, 1, "", (), ()) for number in range(1, 256) for family in (4, 6)]
    assert len({anchor(one) for one in made}) == len(made)

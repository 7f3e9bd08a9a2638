"""Configurations that keepalived would end on: they are refused, and what runs goes on."""

import asyncio
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import pytest

from common.testing import wait_until
from common.testing.debian import Installation
from keepalived_vip.keepalived import Keepalived as Guarded
from keepalived_vip.keepalived import Refused
from keepalived_vip.keeper import Keeper
from keepalived_vip.model import Instance, Layout, Peer
from keepalived_vip.render import Style, render
from tests.disk import no_room, small_disk
from tests.vip.net import SOON, Watch, frames, heard_more, network
from tests.vip.world import Keepalived, running

VIP = "10.9.0.100"
GOOD = Layout((Instance(0, 4, 100, 240, "10.9.0.1", (Peer("node-2", "10.9.0.2"),), (ip_address(VIP),)),))
DOUBLE_VRID = Layout((*GOOD.instances, replace(GOOD.instances[0], group=1, addresses=())))


async def test_a_layout_that_keepalived_refuses_never_reaches_it(tmp_path: Path, installation: Installation) -> None:
    with network(1) as net, Watch(net.machines) as watch:
        real = Keepalived(net.machines[0], tmp_path, installation)
        style = Style("eth0", str(real.track_file), preempt_delay=None)
        keeper = Keeper(Guarded(installation.program("keepalived"), tmp_path), tmp_path / "layout.json", 0.1)
        task = asyncio.create_task(keeper.run(frozenset))
        try:
            keeper.want(GOOD, style)
            await wait_until(lambda: keeper.settled, within=SOON)
            (tmp_path / "pid").unlink(missing_ok=True)
            async with running(real):
                await wait_until(lambda: bool(watch.holders(VIP)), within=SOON)
                keeper.want(DOUBLE_VRID, style)
                await wait_until(lambda: keeper.trouble is not None, within=SOON)
                assert "virtual_router_id" in str(keeper.trouble) or "VRID" in str(keeper.trouble), keeper.trouble
                assert real.configuration.read_text() == render(GOOD, style)
                assert watch.holders(VIP)
                assert real.child.pid is not None
                keeper.want(GOOD, style)
                await wait_until(lambda: keeper.settled, within=SOON)
                # Without the gate this very text ends keepalived, and leaves the address behind.
                real.configuration.write_text(render(DOUBLE_VRID, style))
                real.child.reload()
                await wait_until(lambda: real.child.starts > 1, within=SOON)
        finally:
            task.cancel()


async def test_a_full_disk_leaves_keepalived_what_it_has_until_there_is_room(
    tmp_path: Path, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepalived_vip.keeper._AGAIN", 0.2)
    style, more = Style("eth0", str(tmp_path / "health"), preempt_delay=None), replace(GOOD.instances[0], priority=100)
    with small_disk(tmp_path):
        keeper = Keeper(Guarded(installation.program("keepalived"), tmp_path), tmp_path / "layout.json", 0.1)
        task = asyncio.create_task(keeper.run(frozenset))
        try:
            keeper.want(GOOD, style)
            await wait_until(lambda: keeper.settled, within=SOON)
            with no_room(tmp_path):
                keeper.want(Layout((more,)), style)
                await wait_until(lambda: task.done() or keeper.trouble is not None, within=SOON)
                assert not task.done(), "the service goes on, and with it its keepalived"
                assert "cannot be written: No space left on device; make room there" in str(keeper.trouble)
                assert keeper.keepalived.text == render(GOOD, style)
            await wait_until(lambda: keeper.settled, within=SOON)
            assert keeper.keepalived.text == render(Layout((more,)), style)
            assert Keeper(keeper.keepalived, tmp_path / "layout.json", 0.1).running == Layout((more,))
        finally:
            task.cancel()


@pytest.mark.parametrize("family", [4, 6])
async def test_a_node_that_is_alone_holds_its_addresses(tmp_path: Path, installation: Installation, family: Literal[4, 6]) -> None:
    vip, source = (VIP, "10.9.0.1") if family == 4 else ("fd09::100", "fd09::1")
    alone = Layout((Instance(0, family, 100, 240, source, (), (ip_address(vip),)),))
    with network(1) as net, Watch(net.machines) as watch:
        real = Keepalived(net.machines[0], tmp_path, installation)
        text = render(alone, Style("eth0", str(real.track_file), preempt_delay=None))
        guarded = Guarded(installation.program("keepalived"), tmp_path)
        await guarded.check(text)
        guarded.install(text)
        async with running(real):
            await wait_until(lambda: watch.holders(vip) == {"node-1"}, within=SOON)


STRANGER = """
vrrp_instance theirs {
    state BACKUP
    version 3
    interface eth0
    virtual_router_id 100
    priority 250
    advert_int 0.2
    virtual_ipaddress {
        10.9.0.200/32
    }
}
"""


async def test_a_node_that_is_alone_and_a_router_with_the_same_vrid_leave_each_other_alone(
    tmp_path: Path, installation: Installation
) -> None:
    with network(2) as net, Watch(net.machines) as watch:
        ours = Keepalived(net.machines[0], tmp_path / "ours", installation)
        alone = Layout((replace(GOOD.instances[0], peers=()),))
        ours.configuration.write_text(render(alone, Style("eth0", str(ours.track_file), preempt_delay=None)))
        theirs = Keepalived(net.machines[1], tmp_path / "theirs", installation)
        theirs.configuration.write_text(STRANGER)
        said = net.machines[0].space.enter(frames)
        async with running(ours, theirs):
            await wait_until(lambda: watch.holders(VIP) == {"node-1"} and watch.holders("10.9.0.200") == {"node-2"}, within=SOON)
            began, heard = time.monotonic(), [0, 0]
            while min(heard) < 10:  # each says all the time that it is master, and the other one does not care
                await wait_until(lambda: heard_more(said, heard), within=SOON)
            assert not watch.gaps(VIP, began)
            assert not watch.gaps("10.9.0.200", began)
        said.close()


@pytest.mark.parametrize("text", ["vrrp_instance x {", "nonsense\n", render(DOUBLE_VRID, Style("lo", "/x"))])
async def test_the_gate_refuses_what_is_not_good(tmp_path: Path, installation: Installation, text: str) -> None:
    with pytest.raises(Refused, match=r"keepalived -t says"):
        await Guarded(installation.program("keepalived"), tmp_path).check(text)


async def test_the_gate_says_when_there_is_no_keepalived(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no-such-program"):
        await Guarded("no-such-program", tmp_path).check("")

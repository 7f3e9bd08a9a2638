"""What the bus says comes into force on a node whatever its disk says to it."""

import asyncio
from pathlib import Path

from tests.unit.test_vip_known import SCOPE, known, planned, pools, take, wish

from common.bus.facts import FactPublisher
from common.bus.memory import MemoryBroker, MemoryBus
from common.bus.streams import ensure_streams
from common.runtime.reports import Reports
from common.testing import wait_until
from common.testing.ports import free_port
from keepalived_vip.edges import Edges, Patience, parse_edge
from keepalived_vip.follow import Intake, kept
from keepalived_vip.keepalived import Keepalived
from keepalived_vip.keeper import Keeper
from keepalived_vip.kernel import Kernel
from keepalived_vip.model import Layout
from keepalived_vip.render import Style
from keepalived_vip.settings import Settings
from keepalived_vip.station import Station
from keepalived_vip.wire import dumped


async def test_a_plan_that_a_full_disk_does_not_keep_is_in_force_and_told_and_kept_when_there_is_room(tmp_path: Path) -> None:
    bus = MemoryBus(MemoryBroker())
    await ensure_streams(bus, 1)
    proposal = take(known(pools("192.0.2.0/28")), wish("192.0.2.1")).proposal
    assert proposal is not None
    made = known(pools("192.0.2.0/28"))
    reports = Reports(FactPublisher(bus), service="keepalived-vip", cluster="local", instance="node-1")
    path, news = tmp_path / "plan.json", asyncio.Event()
    path.mkdir()  # no file can take its place
    intake = Intake(made, SCOPE, reports, kept=path, instance="node-1", news=(news,))
    task = asyncio.create_task(intake.follow_wishes(bus))
    try:
        for said in (wish("192.0.2.1"), planned(dumped(proposal, "node-1"))):
            await bus.publish(said.subject, said.body, said.headers)
        await wait_until(lambda: task.done() or (news.is_set() and made.lawful.plan.groups))
        assert not task.done(), "the service goes on"
        assert f"{path} cannot be written: Is a directory; make room there" in reports.firing["PlanNotKept"].summary
        path.rmdir()
        said = wish("192.0.2.1", "192.0.2.2")
        await bus.publish(said.subject, said.body, said.headers)
        await wait_until(lambda: kept(path) == made.lawful and not reports.firing)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_node_that_cannot_tell_keepalived_what_it_may_hold_says_so_and_tells_it_when_there_is_room(tmp_path: Path) -> None:
    settings = Settings(_cli_parse_args=[], run=tmp_path, state=tmp_path, node="node-1")
    keeper = Keeper(Keepalived("keepalived", tmp_path), tmp_path / "layout.json", 0.1)
    edges = Edges([], Patience(every=1, deadline=1, fall=1, rise=1))
    async with Kernel() as kernel:
        station = Station(settings, known(), keeper, kernel, edges)
        settings.track_file.mkdir()  # no file can take its place
        task = asyncio.create_task(station.plan(asyncio.Event()))
        try:
            await wait_until(lambda: task.done() or "cannot be written" in str(station.trouble))
            assert not task.done(), "the service goes on"
            assert str(settings.track_file) in str(station.trouble)
            settings.track_file.rmdir()
            await wait_until(settings.track_file.is_file)
            assert "cannot be written" not in str(station.trouble)
        finally:
            task.cancel()
            await asyncio.wait({task})


class Noting(Keeper):
    """A keeper that notes what keepalived would have found in the track file each time that something is wanted."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(Keepalived("keepalived", settings.run), settings.run / "layout.json", 0.1)
        self.found: list[str] = []
        self._track_file = settings.track_file

    def want(self, layout: Layout, style: Style) -> None:
        self.found.append(self._track_file.read_text() if self._track_file.is_file() else "")
        super().want(layout, style)


async def test_keepalived_is_given_nothing_to_hold_before_it_is_told_whether_it_may(tmp_path: Path) -> None:
    """It takes a track file that is not there for a good word."""
    settings = Settings(_cli_parse_args=[], run=tmp_path, state=tmp_path, node="node-1", interface="eth0", unready="lower")
    proposal = take(known(pools("192.0.2.0/28")), wish("192.0.2.1")).proposal
    assert proposal is not None
    keeper = Noting(settings)
    edges = Edges([parse_edge(f"tcp:127.0.0.1:{free_port()}")], Patience(every=0.1, deadline=1, fall=1, rise=1))
    async with Kernel() as kernel:
        station = Station(settings, take(known(pools("192.0.2.0/28")), planned(dumped(proposal, "node-1"))), keeper, kernel, edges)
        tasks = [asyncio.create_task(station.plan(asyncio.Event()))]
        try:
            await wait_until(lambda: station.own)  # it has looked, and no edge has answered yet
            tasks.append(asyncio.create_task(edges.run()))
            await wait_until(lambda: keeper.found)
            assert set(keeper.found) == {"-100\n"}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

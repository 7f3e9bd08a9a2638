"""The rules that plans are proven against are those of the real HAProxy, and what a plan leads to is what it holds."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.model import Backend, BackendKey, Check, Endpoint, Frontend, FrontKey, Treatment, Wanted
from haproxy_lb.plan import plan
from haproxy_lb.rules import (
    PATHS,
    SOURCES,
    AddServer,
    Admin,
    Command,
    DeleteServer,
    Drop,
    EnableHealth,
    EndSessions,
    Listen,
    Put,
    SetState,
)
from haproxy_lb.runtime import Runtime
from haproxy_lb.slots import Kind, Slot
from tests.conftest import needs
from tests.lb.world import SOON, VIP, VIP6, Balancer, balancer

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
SLOTS = [Kind().slot(number) for number in range(2)]
NAMES = ["10.82.0.10:8080_a", "10.82.0.11:8080_a", "fd82::10:8080_a"]
# What nobody serves is unwell by itself, soon; a check that takes an hour tells nothing while the test runs.
OPTIONS = [(), ("check inter 3600000 rise 2 fall 3",), ("send-proxy-v2", "backup")]


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation, slots={Kind(): 128, Kind("leastconn"): 128}) as world:
        yield world


def commands(chance: random.Random, count: int) -> list[Command]:
    """Commands that make sense, and many that do not."""
    made: list[Command] = []
    for _ in range(count):
        slot, name = chance.choice([*SLOTS, Slot("roundrobin-77")]), chance.choice(NAMES)
        where = "[fd82::10]:8080" if name.startswith("fd") else name.split("_")[0]
        some: list[Command] = [
            AddServer(slot, name, chance.randint(1, 4), where, chance.choice(OPTIONS)),
            SetState(slot, name, chance.choice([*Admin])),
            SetState(slot, name, Admin.MAINT),
            EnableHealth(slot, name),
            EndSessions(slot, name),
            DeleteServer(slot, name),
            Put(SOURCES, chance.choice(["a/4/0A", "b/6/", "c/4/FF"]), str(chance.randint(0, 9)), new=chance.random() < 0.5),
            Drop(SOURCES, chance.choice(["a/4/0A", "b/6/"])),
            Put(PATHS, str(slot), "/well?a=b", new=False),
        ]
        made.append(chance.choice(some))
        if chance.random() < 0.1:
            made += [Listen(slot, on=False), Listen(slot, on=True)]
    return made


async def test_each_command_does_to_the_real_haproxy_what_the_rules_say(lb: Balancer) -> None:
    lb.running.cancel()  # nobody else drives it
    runtime = Runtime(lb.directory / "admin.sock", lb.frame.tables)
    held = await runtime.held()
    obeyed = refused = 0
    for command in commands(random.Random(7), 1500):  # noqa: S311 the same each time
        if isinstance(command, Put) and command.new and command.key in held.tables[command.table]:
            continue  # HAProxy would have it twice, so the rules forbid it
        (said,) = await runtime.give([command])
        ours = held.obey(command)
        assert (said is None) == (ours is None), f"{command}: HAProxy says {said}, the rules say {ours}"
        obeyed, refused = obeyed + (ours is None), refused + (ours is not None)
    real = await runtime.held()
    runtime.close()
    assert held.differences(real) == []
    for slot in SLOTS:
        for name, server in held.slots[slot].items():
            assert (server.up, server.checking) == (real.slots[slot][name].up, real.slots[slot][name].checking), name
    assert obeyed > 200
    assert refused > 200


async def test_tables_that_haproxy_does_not_know_are_not_read_as_empty_ones(lb: Balancer) -> None:
    stranger = Runtime(lb.directory / "admin.sock", "/nowhere")
    held = await stranger.held()
    stranger.close()
    assert held.tables == {}
    assert held.slots.keys() == (await lb.runtime.held()).slots.keys()


def any_wish(chance: random.Random) -> Wanted:
    """Any wish."""
    keys = [key for key in (BackendKey("shop", f"s{n}", port) for n in range(3) for port in (80, 443)) if chance.random() < 0.7]
    backends = {}
    for key in keys:
        hosts = chance.sample([*(f"10.82.0.{n}" for n in range(10, 20)), "fd82::3"], chance.randint(0, 6))
        endpoints = [Endpoint(host, 8080, draining=chance.random() < 0.2, backup=chance.random() < 0.2) for host in sorted(hosts)]
        treatment = Treatment(
            balance=chance.choice(["roundrobin", "leastconn"]),
            check=Check(enabled=chance.random() < 0.5),
            send_proxy=chance.choice(["", "v1", "v2"]),
            rate=chance.choice([0, 100]),
            max_connections=chance.choice([0, 100]),
            accept_proxy=chance.choice([(), ("10.9.0.0/17",)]),
        )
        backends[key] = Backend(key, tuple(endpoints), treatment)
    sources: tuple[tuple[str, ...], ...] = ((), ("10.81.0.0/23", "fd81::/63"))
    fronts = [(FrontKey(address, key.port), key) for key in keys for address in (VIP, VIP6) if chance.random() < 0.8]
    return Wanted({front: Frontend(front, key, chance.choice(sources)) for front, key in fronts}, backends)


async def test_what_is_read_back_after_any_change_needs_no_other_command(lb: Balancer) -> None:
    chance = random.Random(11)  # noqa: S311 the same each time
    worker = lb.worker
    for _ in range(40):
        lb.wanted = any_wish(chance)
        lb.applier.want(lb.wanted)
        await lb.settle()
        await wait_until(lambda: nothing_is_left(lb), within=SOON)  # servers are proven and deleted meanwhile
        assert await lb.kernel.held() == dict(lb.applier._desired.kernel)
    assert lb.worker == worker
    assert lb.runtime.commands > 500


async def nothing_is_left(lb: Balancer) -> bool:
    """Whether somebody else finds in HAProxy what the applier knows, and would do nothing more."""
    other = Runtime(lb.directory / "admin.sock", lb.frame.tables)
    real = await other.held()
    other.close()
    assert lb.applier._live is not None
    left = plan(real, lb.applier._desired)
    return not (lb.applier._live.held.differences(real) or left.first or left.last)

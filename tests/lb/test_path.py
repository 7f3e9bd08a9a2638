"""A connection's way from a client through the kernel and HAProxy to an endpoint, all of them real."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.process import validate
from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.doors import NETWORK
from haproxy_lb.kernel import Kernel
from haproxy_lb.model import Check, Endpoint, Timeouts, Treatment
from haproxy_lb.runtime import Runtime
from tests.conftest import needs
from tests.lb.world import CLIENT, SOON, VIP, VIP6, Answer, Balancer, balancer, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
A, B, C = "10.82.0.10", "10.82.0.11", "10.82.0.12"


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation) as world:
        yield world


async def many(lb: Balancer, count: int, source: str = "") -> list[str]:
    return [(await lb.network.ask(source=source)).by for _ in range(count)]


async def test_a_service_is_answered_at_its_addresses_of_both_families(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A)))
    assert (await lb.network.ask(VIP, 80)).by == A
    assert (await lb.network.ask(VIP6, 80)).by == A
    assert (await lb.network.ask(VIP, 81)) == Answer()


async def test_an_ipv6_endpoint_answers_clients_of_both_families(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve("fd82::3")))
    assert {(await lb.network.ask(address, 80)).by for address in (VIP, VIP6)} == {"fd82::3"}


async def test_nobody_reaches_a_service_by_the_port_of_haproxy_itself(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A)))
    for address in ("10.81.0.1", VIP, "fd81::1", VIP6):
        assert await lb.network.ask(address, lb.frame.port) == Answer()


async def test_a_service_without_endpoints_refuses_and_a_deleted_one_too(lb: Balancer) -> None:
    await lb.have(service([]))
    assert await lb.network.ask() == Answer()
    await lb.have(service(await lb.network.serve(A)))
    assert (await lb.network.ask()).by == A
    await lb.have()
    assert await lb.network.ask() == Answer()


@pytest.mark.parametrize("balance", ["roundrobin", "leastconn"])
async def test_connections_are_spread_evenly(lb: Balancer, balance: str) -> None:
    await lb.have(service(await lb.network.serve(A, B), Treatment(balance=balance)))
    answers = await many(lb, 12)
    assert answers.count(A) == answers.count(B) == 6


async def test_a_source_stays_with_its_endpoint_when_others_come_by_hash(lb: Balancer) -> None:
    endpoints = await lb.network.serve(*(f"10.82.0.{n}" for n in range(10, 30)))
    sources = [f"10.81.0.{n}" for n in range(2, 20)]

    async def spread() -> dict[str, str]:
        return {source: (await lb.network.ask(source=source)).by for source in sources}

    await lb.have(service(endpoints[:10], Treatment(balance="source")))
    before = await spread()
    assert len(set(before.values())) > 4
    assert await spread() == before
    await lb.have(service(endpoints[:11], Treatment(balance="source")))
    await wait_until(lambda: not lb.applier._waiting, within=SOON)
    after = await spread()
    assert sum(before[source] != after[source] for source in sources) <= 6


async def test_only_the_networks_that_may_ask_are_answered_and_they_can_change(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    await lb.have(service(endpoints, sources=("10.81.0.2/31", "fd81::/127")))
    for source, address, by in (
        (CLIENT, VIP, A), ("10.81.0.3", VIP, A), ("10.81.0.4", VIP, ""), ("fd81::2", VIP6, ""),
    ):  # fmt: skip
        assert (await lb.network.ask(address, source=source)).by == by
    await lb.have(service(endpoints, sources=("10.81.0.4/32", "fd81::2/128")))
    for source, address, by in ((CLIENT, VIP, ""), ("10.81.0.4", VIP, A), ("fd81::2", VIP6, A), ("fd81::3", VIP6, "")):
        assert (await lb.network.ask(address, source=source)).by == by
    await lb.have(service(endpoints))
    assert (await lb.network.ask()).by == A


async def test_rules_that_come_and_go_cost_nobody_a_connection_and_are_obeyed_when_they_are_there(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    answers: list[str] = []
    changing = True

    async def visit(address: str) -> None:
        while changing:
            answers.append((await lb.network.ask(address)).by)

    async def more() -> None:
        before = len(answers)
        await wait_until(lambda: len(answers) > before + 8, within=SOON)

    await lb.have(service(endpoints))
    async with asyncio.TaskGroup() as group:
        for address in (VIP, VIP6, VIP, VIP6):
            group.create_task(visit(address))
        for treatment in [
            Treatment(rate=100_000),
            Treatment(),
            Treatment(affinity=10800),
            Treatment(),
            Treatment(max_connections=999),
        ]:
            await lb.have(service(endpoints, treatment))
            await lb.have(service(endpoints, treatment, sources=("10.81.0.0/24", "fd81::/64")))
            await more()
        changing = False
    assert set(answers) == {A}
    await lb.have(service(endpoints))
    assert (await lb.network.ask(VIP)).by == (await lb.network.ask(VIP6)).by == A
    await lb.have(service(endpoints, sources=("198.51.100.0/24",)))
    assert (await lb.network.ask(VIP)) == (await lb.network.ask(VIP6)) == Answer()


async def test_source_ranges_of_one_service_do_not_open_another(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    one = service(endpoints, name="one", fronts=[(VIP, 80)], sources=("10.81.0.2/32",))
    two = service(endpoints, name="two", fronts=[(VIP, 81)], sources=("10.81.0.3/32",))
    await lb.have(one, two)
    assert [(await lb.network.ask(port=port)).by for port in (80, 81)] == [A, ""]


async def test_a_client_stays_with_its_endpoint(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A, B, C), Treatment(affinity=10800)))
    for source in ("10.81.0.2", "10.81.0.3", "10.81.0.4"):
        assert len(set(await many(lb, 5, source=source))) == 1
    assert len({(await lb.network.ask(source=f"10.81.0.{n}")).by for n in range(2, 12)}) == 3


async def test_affinity_outlives_a_reload_and_leaves_an_endpoint_that_drains(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A, B, C)
    sticky = Treatment(affinity=10800)
    await lb.have(service(endpoints, sticky))
    first = (await lb.network.ask()).by
    worker = lb.worker
    # A time of affinity that no slot has yet is a reload.
    await lb.have(service(endpoints, sticky), service(endpoints, Treatment(affinity=60), name="other", fronts=[(VIP, 82)]))
    await wait_until(lambda: lb.applier.settled and lb.worker != worker, within=SOON)
    assert set(await many(lb, 6)) == {first}
    draining = [replace(endpoint, draining=endpoint.address == first) for endpoint in endpoints]
    await lb.have(service(draining, sticky))
    assert first not in await many(lb, 6)


async def test_endpoints_hear_the_proxy_protocol(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    await lb.have(service(endpoints, Treatment(send_proxy="v1")))
    assert (await lb.network.ask()).heard.startswith(f"PROXY TCP4 {CLIENT} {VIP} ")
    assert (await lb.network.ask(VIP6)).heard.startswith(f"PROXY TCP6 fd81::2 {VIP6} ")
    await lb.have(service(endpoints, Treatment(send_proxy="v2")))
    assert "QUIT" in (await lb.network.ask()).heard


async def test_the_proxy_protocol_is_taken_from_trusted_networks_alone_and_chooses_no_service(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    other = await lb.network.serve(B)
    treatment = Treatment(accept_proxy=("10.81.0.2/32",), send_proxy="v1")
    public = service(endpoints, treatment, fronts=[(VIP, 80)], sources=("198.51.100.0/24",))
    await lb.have(public, service(other, name="other", fronts=[(VIP, 81)]))
    header = f"PROXY TCP4 198.51.100.7 {VIP} 999 81\r\n"
    heard = await lb.network.ask(before=header)
    assert heard.by == A
    assert heard.heard.startswith("PROXY TCP4 198.51.100.7 ")
    assert await lb.network.ask(before=header.replace("198.51.100.7", "203.0.113.7")) == Answer()
    assert await lb.network.ask(before=header, source="10.81.0.3") == Answer()


async def test_connections_and_their_rate_are_limited(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    await lb.have(service(endpoints, Treatment(max_connections=2)))
    held = [await lb.network.connect(word="stay") for _ in range(2)]
    assert await lb.network.ask() == Answer()
    for _, _, writer in held:
        writer.close()

    async def answers() -> bool:
        return bool((await lb.network.ask()).by)

    await wait_until(answers, within=SOON)
    await lb.have(service(endpoints, Treatment(rate=5)))
    answered = [one for one in await asyncio.gather(*(lb.network.ask() for _ in range(40))) if one.by]
    assert 5 <= len(answered) <= 15
    await wait_until(answers, within=SOON)


async def test_a_dead_endpoint_gets_no_connections_and_none_fails_for_it(lb: Balancer) -> None:
    endpoints = [*await lb.network.serve(A), Endpoint(B, 8080)]
    await lb.have(service(endpoints, Treatment(check=Check(interval=0.1))))
    assert set(await many(lb, 20)) == {A}


async def test_an_endpoint_is_unwell_when_its_http_check_says_so(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A, B)

    def treated(path: str) -> Treatment:
        return Treatment(check=Check(interval=0.1, rise=1, fall=1, http_path=path))

    await lb.have(service(endpoints, treated("/well?a=b")))
    await wait_until(lambda: not lb.applier._waiting, within=SOON)
    assert set(await many(lb, 6)) == {A, B}
    await lb.have(service(endpoints, treated("/ill")))

    async def refused() -> bool:
        return await lb.network.ask() == Answer()

    await wait_until(refused, within=SOON)


async def test_a_backup_answers_when_nobody_else_does(lb: Balancer) -> None:
    a, b = await lb.network.serve(A, B)
    backup = replace(b, backup=True)
    await lb.have(service([a, backup]))
    assert set(await many(lb, 6)) == {A}
    await lb.have(service([backup]))
    assert set(await many(lb, 6)) == {B}


async def test_a_new_endpoint_is_checked_before_it_gets_connections(lb: Balancer) -> None:
    quick = Treatment(check=Check(interval=0.2, rise=1, fall=1))
    (a,) = await lb.network.serve(A)
    await lb.have(service([a], quick))
    await lb.have(service([a, Endpoint(B, 8080)], quick))
    assert set(await many(lb, 10)) == {A}
    assert lb.applier._waiting
    await lb.network.serve(B)
    await wait_until(lambda: not lb.applier._waiting, within=SOON)
    assert set(await many(lb, 10)) == {A, B}


async def test_a_draining_endpoint_finishes_what_it_has_and_gets_no_more(lb: Balancer) -> None:
    a, b = await lb.network.serve(A, B)
    await lb.have(service([a]))
    _, reader, writer = await lb.network.connect(word="stay")
    await lb.have(service([replace(a, draining=True), b]))
    assert set(await many(lb, 6)) == {B}
    await lb.have(service([b]))
    assert set(await many(lb, 6)) == {B}
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    await wait_until(lambda: not len(lb.leaving), within=SOON)
    assert [name for name in lb.held("roundrobin-0") if A in name] == []


async def test_who_is_connected_after_the_deadline_is_cut_off(lb: Balancer) -> None:
    lb.leaving._deadline = 0.5
    a, b = await lb.network.serve(A, B)
    await lb.have(service([a]))
    _, reader, _ = await lb.network.connect(word="stay")
    await lb.have(service([b]))
    async with asyncio.timeout(SOON):
        assert await reader.read() == b""
    await wait_until(lambda: not len(lb.leaving), within=SOON)


@pytest.mark.parametrize("timeouts", [Timeouts(tunnel=0.3), Timeouts(client=0.3), Timeouts(server=0.3, client=60)], ids=str)
async def test_timeouts_of_a_service_are_its_own(lb: Balancer, timeouts: Timeouts) -> None:
    endpoints = await lb.network.serve(A)
    await lb.have(service(endpoints), service(endpoints, Treatment(timeouts=timeouts), name="short", fronts=[(VIP, 81)]))
    (_, usual, kept), (_, short, _) = [await lb.network.connect(port=port, word="stay") for port in (80, 81)]
    async with asyncio.timeout(SOON):
        assert await short.read() == b""
    kept.write(b"on\n")
    assert await usual.readline() == b"on\n"


async def test_who_is_silent_is_asked_whether_he_is_still_there(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A)))
    await lb.network.connect(word="stay")
    outcome = await validate([*lb.network.router.enter, "ss", "-Htno", "state", "established"], timeout=5)
    ways = [line for line in outcome.output.splitlines() if CLIENT in line or A in line]
    assert len(ways) == 2
    for line in ways:
        seconds = line.split("timer:(keepalive,")[1].split(",")[0]  # such as 59sec, or 1min
        assert seconds == "1min" or float(seconds.removesuffix("sec").removesuffix("ms")) <= 60


async def test_a_killed_haproxy_comes_back_with_what_it_had(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A, B)
    treatment = Treatment(accept_proxy=("10.9.0.0/16",), check=Check(http_path="/well?a=b"))
    await lb.have(service(endpoints, treatment, sources=("10.81.0.2/32", "fd81::/64")))
    before = await lb.whole()
    os.kill(lb.worker, signal.SIGKILL)

    async def whole() -> bool:
        return bool((await lb.network.ask()).by) and lb.applier.settled and await lb.whole() == before

    await wait_until(whole, within=SOON * 2)


async def test_what_was_changed_while_haproxy_was_away_is_in_force_when_it_is_back(lb: Balancer) -> None:
    a, b = await lb.network.serve(A, B)
    await lb.have(service([a]))
    worker = lb.worker
    os.kill(worker, signal.SIGKILL)
    lb.want(service([b]))
    await wait_until(lambda: lb.applier.settled and lb.worker != worker, within=SOON * 2)
    assert set(await many(lb, 4)) == {B}


async def test_what_a_full_disk_did_not_take_is_in_force_and_written_when_there_is_room_although_nothing_changes(
    lb: Balancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haproxy_lb.configure._RETRY", 0.2)
    a, b = await lb.network.serve(A, B)
    await lb.have(service([a]))
    written = lb.directory / "haproxy.cfg"
    written.unlink()
    written.mkdir()  # no file can take its place
    lb.want(service([b]))
    await wait_until(lambda: "cannot be written" in str(lb.applier.trouble), within=SOON)
    assert set(await many(lb, 4)) == {B}
    written.rmdir()
    await lb.settle()
    assert written.is_file()


async def test_a_restarted_service_changes_nothing_that_is_as_it_should_be(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A, B)
    await lb.have(service(endpoints, name="b"), service(endpoints, Treatment(affinity=10800), name="a", fronts=[(VIP, 81)]))
    before = await lb.whole()
    async with lb.another_applier() as other:
        other.want(lb.wanted)
        other.release()
        await wait_until(lambda: other.settled, within=SOON)
    assert await lb.whole() == before


async def test_a_balancer_that_leaves_takes_back_what_the_kernel_was_told(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A)))
    lb.running.cancel()
    await asyncio.wait({lb.running})
    router = (*lb.network.router.enter,)
    for _ in range(2):
        await lb.applier.leave()
        assert (await validate([*router, "nft", "list", "ruleset"], timeout=5)).output == ""
        assert (
            str(lb.frame.inside) not in (await validate([*router, "ip", "-6", "route", "show", "table", "all"], timeout=5)).output
        )
        assert str(NETWORK) not in (await validate([*router, "ip", "route", "show", "table", "all"], timeout=5)).output
    assert (await lb.network.ask()) == Answer()


@pytest.mark.parametrize(
    "change", ["nft flush ruleset", "nft flush set inet seaway_lb doors", f"ip route delete local {NETWORK} dev lo"]
)
async def test_what_others_changed_is_mended(lb: Balancer, change: str) -> None:
    await lb.have(service(await lb.network.serve(A)))
    before = await lb.whole()
    assert not (await validate([*lb.network.router.enter, *change.split()], timeout=5)).code
    assert await lb.kernel.held() is None
    stranger = Runtime(lb.directory / "admin.sock", lb.frame.tables)
    await stranger.ask([f"clear map {lb.directory}/fronts.map"])
    stranger.close()
    lb.runtime.gone()

    async def whole() -> bool:
        return bool((await lb.network.ask()).by) and await lb.whole() == before

    await wait_until(whole, within=SOON)


async def test_slots_that_run_out_are_made_without_a_lost_connection(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    first = service(endpoints)
    await lb.have(first)
    _, reader, writer = await lb.network.connect(word="stay")
    worker = lb.worker
    more = [service(endpoints, Treatment(affinity=77), name=f"s{n}", fronts=[(VIP, 1000 + n)]) for n in range(30)]
    await lb.have(first, *more)
    assert lb.worker != worker
    assert {(await lb.network.ask(port=1000 + n)).by for n in range(30)} == {A}
    writer.write(b"on\n")
    assert await reader.readline() == b"on\n"
    worker = lb.worker
    await lb.have(first, *more[:20])
    assert lb.worker == worker


async def test_a_restart_on_another_port_of_haproxy_takes_over_what_the_kernel_was_told(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A)))
    before = await lb.kernel.held()
    assert before is not None
    elsewhere = Kernel(lb.frame.port + 1, lb.frame.inside, lb.kernel._prefix)
    assert await elsewhere.held() is None, "they lead to a port that is nobody's any more"
    await elsewhere.replace(before)
    assert await elsewhere.held() == before


async def test_slots_that_were_added_are_there_after_a_kill_too(lb: Balancer) -> None:
    endpoints = await lb.network.serve(A)
    await lb.have(*(service(endpoints, name=f"s{n}", fronts=[(VIP, 1000 + n)]) for n in range(40)))
    before, worker = await lb.whole(), lb.worker
    assert len(before[1]) > sum(lb.frame.slots.values())
    os.kill(worker, signal.SIGKILL)

    async def whole() -> bool:
        return lb.applier.settled and lb.worker != worker and await lb.whole() == before

    await wait_until(whole, within=SOON * 2)
    assert {(await lb.network.ask(port=1000 + n)).by for n in (0, 39)} == {A}

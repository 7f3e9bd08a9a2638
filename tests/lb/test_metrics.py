"""Metrics: what HAProxy counted is told of Services and endpoints, and of no more than there may be."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.testing import wait_until
from common.testing.debian import Installation
from haproxy_lb.exposition import exposition
from haproxy_lb.model import BackendKey, Check, Endpoint, Treatment
from haproxy_lb.runtime import Runtime
from haproxy_lb.scrape import Scrape
from haproxy_lb.slots import Slot
from tests.conftest import needs
from tests.lb.world import SOON, VIP, Balancer, balancer, service

BOTH = True
pytestmark = [pytest.mark.root, needs("haproxy"), needs("nft", package="nftables"), needs("ip", package="iproute2")]
A, B = "10.82.0.10", "10.82.0.11"


@pytest.fixture
async def lb(tmp_path: Path, installation: Installation) -> AsyncIterator[Balancer]:
    async with balancer(tmp_path, installation) as world:
        yield world


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by the values of its labels, without the namespace."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(value for label, value in sample.labels.items() if label != "namespace")] = sample.value
    return found


def scrape(lb: Balancer, endpoints: int = 100) -> Scrape:
    return Scrape(Runtime(lb.directory / "admin.sock", lb.frame.tables), lambda: lb.applier.slots, endpoints)


async def test_connections_and_endpoints_are_told_by_service(lb: Balancer) -> None:
    a, _ = await lb.network.serve(A, B)
    quick = Treatment(check=Check(interval=0.1, rise=1, fall=1))
    await lb.have(
        service([a, Endpoint("10.82.0.12", 8080)], quick),
        service([Endpoint(B, 8080)], name="api", fronts=[(VIP, 81)], sources=("203.0.113.0/24",)),
    )
    for _ in range(3):
        assert (await lb.network.ask()).by == A
    assert not (await lb.network.ask(port=81)).by
    await lb.network.connect(word="stay")
    scraping = scrape(lb)

    async def one_is_down() -> bool:
        return samples(await scraping.text(), "seaway_lb_endpoints").get(("web", "80", "down")) == 1

    await wait_until(one_is_down, within=SOON)
    text = await scraping.text()
    assert samples(text, "seaway_lb_connections_total") == {("api", "80"): 0, ("web", "80"): 4}
    assert samples(text, "seaway_lb_connections")["web", "80"] == 1
    assert samples(text, "seaway_lb_sent_bytes_total")["web", "80"] > 100
    assert samples(text, "seaway_lb_endpoint_up") == {
        ("api", "80", f"{B}:8080"): 1, ("web", "80", f"{A}:8080"): 1, ("web", "80", "10.82.0.12:8080"): 0,
    }  # fmt: skip
    assert samples(text, "seaway_lb_endpoint_connections_total")["web", "80", f"{A}:8080"] == 4
    assert samples(text, "seaway_lb_refused_connections_total")["rule",] >= 1
    await lb.have()
    assert samples(await scraping.text(), "seaway_lb_connections_total") == {}, "a Service that is gone has no series"


async def test_connections_beyond_the_limit_are_told(lb: Balancer) -> None:
    await lb.have(service(await lb.network.serve(A), Treatment(max_connections=1)))
    await lb.network.connect(word="stay")
    for _ in range(3):
        assert not (await lb.network.ask()).by
    assert samples(await scrape(lb).text(), "seaway_lb_refused_connections_total")["limit",] == 3


async def test_endpoints_beyond_the_bound_are_counted_and_have_no_series(lb: Balancer) -> None:
    many = [Endpoint(f"10.82.0.{n}", 8080) for n in range(100, 110)]
    unchecked = Treatment(check=Check(enabled=False))
    await lb.have(*(service(many, unchecked, name=f"s{n}", fronts=[(VIP, 1000 + n)]) for n in range(4)))
    text = await scrape(lb, endpoints=25).text()
    assert {key[0] for key in samples(text, "seaway_lb_endpoint_up")} == {"s0", "s1"}
    assert samples(text, "seaway_lb_endpoints_untold") == {(): 20}
    assert samples(text, "seaway_lb_endpoints")["s3", "80", "up"] == 10


async def test_a_scrape_while_haproxy_is_away_tells_nothing_and_does_not_fail(lb: Balancer) -> None:
    gone = Scrape(Runtime(lb.directory / "nobody.sock", lb.frame.tables), dict, 10)
    assert await gone.text() == ""


async def test_nobody_counts_twice_for_servers_at_one_address(lb: Balancer) -> None:
    (a,) = await lb.network.serve(A)
    await lb.have(service([a]))
    await lb.network.ask()
    lb.leaving._linger = 3600
    await lb.have(service([a], Treatment(check=Check(enabled=False))))
    await lb.network.ask()
    text = await scrape(lb).text()
    assert samples(text, "seaway_lb_endpoint_up") == {("web", "80", f"{A}:8080"): 1}
    assert samples(text, "seaway_lb_endpoint_connections_total") == {("web", "80", f"{A}:8080"): 2}
    assert samples(text, "seaway_lb_endpoints") == {
        ("web", "80", "up"): 1, ("web", "80", "down"): 0, ("web", "80", "leaving"): 0,
    }  # fmt: skip


def test_what_haproxy_does_not_say_counts_nothing() -> None:
    text = exposition("", "# pxname,svname,scur\nroundrobin-0,BACKEND,\n", {BackendKey("a", "b", 1): Slot("roundrobin-0")}, 1)
    assert samples(text, "seaway_lb_connections") == {("b", "1"): 0}

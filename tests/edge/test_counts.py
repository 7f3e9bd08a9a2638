"""What nginx counts of requests: all of them, by Ingress, over reloads and for as long as the Ingress is there."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.testing import wait_until
from common.testing.objects import ingress, rule, service
from nginx_config_renderer.scrape import Scrape
from tests.edge.fleet import Asked, Server, fleet, hangs_up, well
from tests.edge.world import SOON, EdgeWorld

HOST = "shop.example"


@pytest.fixture
async def world(own: EdgeWorld) -> EdgeWorld:
    await own.put(service("web"), *await own.serve("web"), ingress("shop", rule(HOST, "/", "web:80")))
    return own


async def scraped(world: EdgeWorld) -> dict[tuple[str, str], float]:
    """Name and Ingress (or Service, or state) → value, buckets left out; the classes of a status are names of their own."""
    text = await Scrape(world.admin, world.wanted, lambda: True).text()
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                about = next((sample.labels[name] for name in ("ingress", "service", "state") if name in sample.labels), "")
                found[sample.name + sample.labels.get("code", ""), about] = sample.value
    return found


async def counted(world: EdgeWorld, name: str, about: str, value: float) -> None:
    async def there() -> bool:
        return (await scraped(world)).get((name, about)) == value

    await wait_until(there, within=SOON)


async def test_every_request_is_counted_once_with_its_bytes_and_times(world: EdgeWorld) -> None:
    for _ in range(5):
        assert (await world.ask(HOST)).status == 200
    assert (await world.ask("nobody.example")).status == 404
    await counted(world, "seaway_edge_requests_total2xx", "shop", 5)
    await counted(world, "seaway_edge_requests_total4xx", "", 1)
    found = await scraped(world)
    assert found["seaway_edge_request_seconds_count", "shop"] == 5
    assert found["seaway_edge_upstream_seconds_count", "shop"] == 5
    assert found["seaway_edge_request_bytes_total", "shop"] > 5 * len(HOST)
    assert found["seaway_edge_response_bytes_total", "shop"] > 5 * 100
    assert found["seaway_edge_uncounted_total", ""] == 0


async def test_counts_of_more_ingresses_than_are_written_at_once_are_all_there_and_nginx_warns_of_nothing(world: EdgeWorld) -> None:
    names = [f"shop-{number}" for number in range(250)]
    await world.put(*(ingress(name, rule(f"{name}.example", "/", "web:80")) for name in names))
    for name in names:
        assert (await world.ask(f"{name}.example")).status == 200

    async def all_there() -> bool:
        found = await scraped(world)
        return all(found.get(("seaway_edge_requests_total2xx", name)) == 1 for name in names)

    await wait_until(all_there, within=SOON)


async def test_requests_that_overlap_are_each_counted_for_their_own_ingress(world: EdgeWorld) -> None:
    together = asyncio.Barrier(40)

    async def waits(asked: Asked) -> bytes | None:
        await together.wait()
        return await well(asked)

    async with fleet(world, "slow", Server(waits)), fleet(world, "api", Server(waits)):
        await world.put(*(ingress(name, rule(f"{name}.example", "/", f"{name}:80")) for name in ("slow", "api")))
        answers = await asyncio.gather(*(world.ask(host) for host in 20 * ("slow.example", "api.example")))
        assert {answer.status for answer in answers} == {200}
    await counted(world, "seaway_edge_requests_total2xx", "slow", 20)
    await counted(world, "seaway_edge_requests_total2xx", "api", 20)


async def test_a_request_that_is_refused_before_it_has_a_route_is_counted_for_nobody_whoever_was_asked_before(
    world: EdgeWorld,
) -> None:
    for _ in range(10):
        assert await world.say(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode()) == [200, 400]
    await counted(world, "seaway_edge_requests_total2xx", "shop", 10)
    await counted(world, "seaway_edge_requests_total4xx", "", 10)
    assert ("seaway_edge_requests_total4xx", "shop") not in await scraped(world)


async def test_a_reload_loses_no_count(world: EdgeWorld) -> None:
    for number in range(3):
        for _ in range(4):
            assert (await world.ask(HOST)).status == 200
        await world.configure({"keep-alive": str(10 + number)})
    await counted(world, "seaway_edge_requests_total2xx", "shop", 12)


async def test_second_tries_and_ejections_are_counted(world: EdgeWorld) -> None:
    async with fleet(world, "api", Server(hangs_up), Server()):
        await world.put(ingress("api", rule("api.example", "/", "api:80")))
        for _ in range(20):
            assert (await world.ask("api.example")).status == 200
        await counted(world, "seaway_edge_requests_total2xx", "api", 20)
        found = await scraped(world)
        assert 3 <= found["seaway_edge_retries_total", "api"] <= 6, "three a worker, and no more"
        assert found["seaway_edge_ejections_total", "api"] >= 1


async def test_an_ingress_that_is_gone_is_forgotten_and_a_new_one_begins_at_nothing(world: EdgeWorld) -> None:
    shop = ingress("shop", rule(HOST, "/", "web:80"))
    assert (await world.ask(HOST)).status == 200
    await counted(world, "seaway_edge_requests_total2xx", "shop", 1)
    await world.remove(shop)
    await scraped(world)
    await world.put(shop)
    assert ("seaway_edge_requests_total2xx", "shop") not in await scraped(world)


async def test_while_nginx_is_away_there_are_no_counts_and_no_error(world: EdgeWorld) -> None:
    await world.nginx.stop(5)
    text = await Scrape(world.admin, world.wanted, lambda: True).text()
    assert {family.name for family in text_string_to_metric_families(text)} == {"seaway_edge_endpoints"}


async def test_it_says_how_many_endpoints_each_backend_has(world: EdgeWorld) -> None:
    assert (await scraped(world))["seaway_edge_endpoints", "web"] == 1
    await world.put(ingress("empty", rule("empty.example", "/", "nobody:80")), service("nobody"))
    assert (await scraped(world))["seaway_edge_endpoints", "nobody"] == 0


async def test_what_the_edge_answers_itself_is_counted_for_the_ingress_that_it_is_about(world: EdgeWorld) -> None:
    await world.put(ingress("empty", rule("empty.example", "/", "nobody:80")), service("nobody"))
    assert (await world.ask("empty.example")).status == 503
    await counted(world, "seaway_edge_requests_total5xx", "empty", 1)
    assert ("seaway_edge_upstream_seconds_count", "empty") not in await scraped(world)

"""Which backend and which endpoint: several canaries of one route, clients by their address, IPv6, and Services without an address."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from common.testing.objects import endpoint_slice, ingress, rule, service
from nginx_config_renderer.annotations import PREFIX
from tests.edge.fleet import Server, fleet
from tests.edge.world import EdgeWorld, Raw, ask, backend, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = "choice.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, workers=1) as world:
            names = ("main", "one", "two", "three")
            await world.put(*(service(name) for name in names), *await world.serve(*names))
            yield world


def main_route(**asked: str) -> Raw:
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in asked.items()}
    return ingress("main", rule(HOST, "/", "main:80"), annotations=annotations, created="2026-01-01T00:00:00Z")


def canary(name: str, age: int, **asked: str) -> Raw:
    annotations = {f"{PREFIX}canary": "true"} | {f"{PREFIX}canary-{key.replace('_', '-')}": value for key, value in asked.items()}
    return ingress(name, rule(HOST, "/", f"{name}:80"), annotations=annotations, created=f"2026-01-0{age}T00:00:00Z")


async def answers(world: EdgeWorld, count: int = 1, headers: Mapping[str, str] | None = None) -> Counter[str]:
    return Counter([(await ask(world.port, HOST, headers=headers)).by for _ in range(count)])


async def test_several_canaries_of_a_route_each_get_their_share(world: EdgeWorld) -> None:
    canaries = canary("one", 2, weight="20"), canary("two", 3, weight="100", weight_total="400")
    await world.put(main_route(), *canaries)
    got = await answers(world, 600)
    shares = {name: got[name] / 600 for name in ("main", "one", "two")}
    for name, share in (("main", 0.55), ("one", 0.2), ("two", 0.25)):
        assert abs(shares[name] - share) < 4 * (share * (1 - share) / 600) ** 0.5, shares
    await world.remove(*canaries)
    assert await answers(world, 5) == {"main": 5}


async def test_a_header_or_a_cookie_goes_before_shares_and_the_oldest_canary_before_others(world: EdgeWorld) -> None:
    canaries = (
        canary("one", 2, by_header="X-Try", by_header_value="one"),
        canary("two", 3, by_header="X-Try", by_header_pattern="^(two|2)$"),
        canary("three", 4, by_cookie="try", by_header="X-Any", weight="0"),
    )
    await world.put(main_route(), *canaries)
    asked: list[tuple[dict[str, str], str]] = [
        ({}, "main"),
        ({"X-Try": "one"}, "one"),
        ({"X-Try": "ones"}, "main"),
        ({"X-Try": "2"}, "two"),
        ({"X-Try": "always"}, "main"),
        ({"X-Any": "always"}, "three"),
        ({"X-Any": "never", "Cookie": "try=always"}, "main"),
        ({"Cookie": "try=always"}, "three"),
        ({"Cookie": "try=never"}, "main"),
        ({"Cookie": "try=perhaps"}, "main"),
        ({"X-Try": "one", "X-Any": "always"}, "one"),
    ]
    assert [(headers, (await answers(world, headers=headers)).most_common(1)[0][0]) for headers, _ in asked] == asked
    await world.remove(*canaries)


async def test_a_pattern_that_takes_for_ever_is_ended_and_the_request_answered(world: EdgeWorld) -> None:
    slow = canary("one", 2, by_header="X-Try", by_header_pattern="^(a+)+$")
    broken = canary("two", 3, by_header="X-Try", by_header_pattern="(((")
    await world.put(main_route(), slow, broken)
    assert await answers(world, headers={"X-Try": "a" * 60 + "!"}) == {"main": 1}
    assert await answers(world, headers={"X-Try": "aaa"}) == {"one": 1}
    await world.remove(slow, broken)


async def test_a_client_whose_cookie_names_a_canary_without_endpoints_is_served_by_others(world: EdgeWorld) -> None:
    async with fleet(world, "new", Server()) as slices:
        shown = canary("new", 2, weight="100")
        await world.put(main_route(affinity="cookie"), shown)
        cookie, _, _ = (await ask(world.port, HOST)).headers["set-cookie"].partition("; ")
        await world.put(canary("new", 2, weight="0"))
        stays = await ask(world.port, HOST, headers={"Cookie": cookie})
        assert (stays.status, stays.body) == (200, "ok")
        await world.remove(*slices)
        assert await answers(world, headers={"Cookie": cookie}) == {"main": 1}
        await world.remove(shown)


@pytest.mark.parametrize("variable", ["$remote_addr", "$binary_remote_addr"])
async def test_a_client_stays_at_its_endpoint_by_its_address(world: EdgeWorld, variable: str) -> None:
    servers = [Server() for _ in range(3)]
    asked = {f"{PREFIX}upstream-hash-by": variable}
    async with fleet(world, "client", *servers):
        await world.put(ingress("client", rule("client.example", "/", "client:80"), annotations=asked))
        for _ in range(6):
            assert (await world.ask("client.example")).status == 200
        assert sorted(len(server.asked) for server in servers) == [0, 0, 6]


async def test_endpoints_of_both_families_and_of_a_service_without_an_address_take_turns(world: EdgeWorld) -> None:
    if not world.settings.ipv6:
        pytest.skip("this machine has no IPv6")
    over_6 = Server()
    server = await asyncio.start_server(over_6.serve, "::1", 0)
    async with server, backend("over-4") as port:
        headless = service("both", 80)
        headless["spec"]["clusterIP"] = "None"
        four = endpoint_slice("both", "127.0.0.1", port=port)
        six = endpoint_slice("both", "::1", port=server.sockets[0].getsockname()[1], suffix="six")
        await world.put(ingress("both", rule("both.example", "/", "both:80")), headless, four, six)
        assert {(await world.ask("both.example")).status for _ in range(10)} == {200}
        assert len(over_6.asked) == 5
        await world.remove(headless, four, six)
        await over_6.hang_up()

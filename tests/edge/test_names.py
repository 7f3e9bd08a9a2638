"""Services that lead to a name: a real name server is asked, as often as it says, and nginx sends requests where it points."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from common.testing import wait_until
from common.testing.objects import ingress, rule, service
from nginx_config_renderer.names import DNS, Names
from nginx_config_renderer.resolved import Resolved
from tests.edge.fleet import Server
from tests.edge.world import SOON, EdgeWorld, Raw

NAME = "db.example.org"
SHOP = ingress("shop", rule("shop.example", "/", "web:80"))


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Answers what it is told to, and counts. `code` other than NOERROR is its answer to everything; None is silence."""

    records: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ttl: int = 1
    code: dns.rcode.Rcode | None = dns.rcode.NOERROR
    asked: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.asked += 1
        if self.code is None:
            return
        answer = dns.message.make_response(query)
        answer.set_rcode(self.code)
        found = self.records.get(f"{question.name.to_text(omit_final_dot=True)} {question.rdtype.name}", ())
        if found and self.code == dns.rcode.NOERROR:
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", question.rdtype, *found))
        self._transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, DNS]]:
    """A name server on the loopback address, and who asks it."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers = ["127.0.0.1"]
    resolver.port = transport.get_extra_info("sockname")[1]
    try:
        yield server, DNS(resolver)
    finally:
        transport.close()


@contextmanager
def own_address() -> Iterator[str]:
    """An address of this machine that is not the loopback address, since nothing is sent there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has the loopback address alone")
        yield str(probe.getsockname()[0])


class Takes:
    """What the renderer's intake does of it, on an edge of a test."""

    def __init__(self, own: EdgeWorld) -> None:
        self.named = asyncio.Event()
        self._own = own
        self.found: list[Resolved] = []

    @property
    def names(self) -> frozenset[str]:
        return self._own.wanted.names

    def resolve(self, found: Resolved) -> None:
        self.found.append(found)
        self._own._take(self._own.wanted.resolve(found))

    def unname(self, name: str) -> None:
        self._own._take(self._own.wanted.unname(name))


def leads_to(name: str, port: int) -> Raw:
    made = service("web", 80)
    made["spec"] |= {"type": "ExternalName", "externalName": name}
    made["spec"]["ports"][0]["targetPort"] = port
    return made


@asynccontextmanager
async def looking_up(own: EdgeWorld, source: DNS) -> AsyncIterator[Takes]:
    takes = Takes(own)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Names(source, takes).run())
        try:
            yield takes
        finally:
            task.cancel()


async def test_requests_go_where_the_name_points_and_follow_it_when_its_time_is_over(own: EdgeWorld) -> None:
    backend = Server()
    with own_address() as address:
        async with AsyncExitStack() as stack, name_server() as (server, source), asyncio.timeout(SOON):
            listening = await asyncio.start_server(backend.serve, address, 0)
            stack.callback(listening.close)
            stack.push_async_callback(backend.hang_up)
            server.records = {f"{NAME} A": (address,), f"{NAME} AAAA": ("fd00::1",)}
            await own.put(SHOP, leads_to(NAME, listening.sockets[0].getsockname()[1]))
            assert (await own.ask("shop.example")).status == 503
            async with looking_up(own, source) as takes:
                await wait_until(lambda: takes.found)
                await own.settle()
                assert takes.found[0].addresses == (address,), "IPv6 is for names that have nothing else"
                assert takes.found[0].own == (address,)
                assert (await own.ask("shop.example")).status == 200
                assert len(backend.asked) == 1
                server.records = {f"{NAME} A": ("127.0.0.1", "169.254.169.254")}
                await wait_until(lambda: len(takes.found) > 1, within=SOON)
                await own.settle()
                assert (await own.ask("shop.example")).status == 503, "it leads to this machine now, where nothing is sent"
                assert any(problem.reason == "AddressRefused" for problem in own.wanted.problems)
                server.records = {f"{NAME} A": (address,)}
                await wait_until(lambda: len(takes.found) > 2, within=SOON)
                await own.settle()
                assert (await own.ask("shop.example")).status == 200


async def test_a_name_server_that_fails_takes_nothing_away_and_a_name_that_is_gone_is(own: EdgeWorld) -> None:
    async with name_server() as (server, source), asyncio.timeout(SOON):
        server.records = {f"{NAME} A": ("192.0.2.7",)}
        await own.put(SHOP, leads_to(NAME, 8080))
        async with looking_up(own, source) as takes:
            await wait_until(lambda: takes.found)
            server.code = dns.rcode.SERVFAIL
            await wait_until(lambda: len(takes.found) > 1, within=SOON)
            assert takes.found[1].addresses == ("192.0.2.7",)
            assert "cannot be looked up now" in takes.found[1].problem
            server.code = dns.rcode.NXDOMAIN
            await wait_until(lambda: len(takes.found) > 2, within=SOON)
            assert takes.found[2].addresses == ()
            assert "does not exist" in takes.found[2].problem


async def test_a_renderer_that_starts_while_no_name_server_answers_leaves_nginx_the_last_addresses(own: EdgeWorld) -> None:
    async with name_server() as (server, source), asyncio.timeout(SOON):
        server.records = {f"{NAME} A": ("192.0.2.7",)}
        await own.put(SHOP, leads_to(NAME, 8080))
        async with looking_up(own, source) as takes:
            await wait_until(lambda: takes.found)
        await own.settle()
        before = await own.holds()
        own._take(own.wanted.unname(NAME))
        own.applier.hold()
        own.applier.release()
        server.code = dns.rcode.SERVFAIL
        async with looking_up(own, source) as takes:
            await wait_until(lambda: takes.found)
            await own.settle()
            assert await own.holds() == before
            assert any("cannot be looked up now" in problem.message for problem in own.wanted.problems)
            server.code, server.records = dns.rcode.NOERROR, {f"{NAME} A": ("192.0.2.8",)}
            await wait_until(lambda: len(takes.found) > 1, within=SOON)
            await own.settle()
            assert await own.holds() == own.should_hold() != before


async def test_a_name_is_asked_for_no_more_often_than_its_records_say_and_not_after_its_last_use(own: EdgeWorld) -> None:
    async with name_server() as (server, source), asyncio.timeout(SOON):
        server.records, server.ttl = {f"{NAME} A": ("192.0.2.7",)}, 300
        await own.put(SHOP, leads_to(NAME, 8080))
        async with looking_up(own, source) as takes:
            await wait_until(lambda: takes.found)
            for _ in range(3):
                takes.named.set()
                await wait_until(lambda: not takes.named.is_set())
            assert server.asked == 1
            await own.remove(SHOP)
            takes.named.set()
            await wait_until(lambda: not takes.named.is_set())
            assert own.wanted._store.get(Resolved, "", NAME) is None


async def test_an_address_in_the_place_of_a_name_is_asked_of_nobody(own: EdgeWorld) -> None:
    async with name_server() as (server, source), asyncio.timeout(SOON):
        await own.put(SHOP, leads_to("192.0.2.8", 8080))
        async with looking_up(own, source) as takes:
            await wait_until(lambda: takes.found)
            assert takes.found[0].addresses == ("192.0.2.8",)
            assert server.asked == 0


async def test_what_nobody_claims_is_answered_by_the_service_of_the_operator(tmp_path: object) -> None:
    """The setting `default_backend_service`; an Ingress's own default backend goes before it."""
    from tests.edge.world import edge, open_directory  # noqa: PLC0415 an edge with a setting of its own

    with open_directory() as directory:
        async with edge(directory, default_backend_service="default/sorry", strict_trailing_slash=False) as world:
            assert (await world.ask("nobody.example")).status == 503, "it has no endpoint yet"
            await world.put(service("sorry"), service("web"), *await world.serve("sorry", "web"))
            await world.put(
                ingress("shop", rule("shop.example", "/cart", "web:80"), rule("shop.example", "/slash/", "web:80", "Exact"))
            )
            asked = {"shop.example": ("/cart", "/other"), "nobody.example": ("/", "/x")}
            answers = {(host, path): (await world.ask(host, path)).by for host, paths in asked.items() for path in paths}
            assert answers == {
                ("shop.example", "/cart"): "web",
                ("shop.example", "/other"): "sorry",
                ("nobody.example", "/"): "sorry",
                ("nobody.example", "/x"): "sorry",
            }
            assert (await world.ask("shop.example", "/slash")).status == 301
            own_default = ingress("own", rule("own.example", "/a", "web:80"), default="web:80")
            await world.put(own_default)
            assert (await world.ask("own.example", "/other")).by == "web"
            await world.nginx.stop(5)

"""Requests that mean one thing to us and another to the backend: each is refused, or means the same to both."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from common.testing.debian import Installation
from common.testing.objects import ingress, rule
from tests.edge.fleet import Server, fleet
from tests.edge.world import EdgeWorld, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = True
HOST = "strict.example"
SHOP = ingress("shop", rule(HOST, "/", "web:80"), rule(HOST, "/admin", "admin:80"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(installation: Installation) -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, installation, workers=1) as world:
            await world.put(SHOP)
            yield world


SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: strict.example\r\n\r\n"


def post(*fields: bytes, body: bytes = b"", first: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: strict.example") -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *fields, b"", b""]) + body


CHUNKED = b"Transfer-Encoding: chunked"
AMBIGUOUS = {
    "a length and chunks": post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and a length": post(CHUNKED, b"Content-Length: 6", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 46", body=SMUGGLED),
    "two lengths in one": post(b"Content-Length: 0, 46", body=SMUGGLED),
    "a negative length": post(b"Content-Length: -1", body=SMUGGLED),
    "a length with a sign": post(b"Content-Length: +5", body=b"hello"),
    "a length that is none": post(b"Content-Length: 0x10", body=SMUGGLED),
    "a length beyond all numbers": post(b"Content-Length: 99999999999999999999999", body=SMUGGLED),
    "an encoding that is not known": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and more": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks twice": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks in HTTP/1.0": post(CHUNKED, first=b"POST / HTTP/1.0", body=b"0\r\n\r\n" + SMUGGLED),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a tab in a name": post(b"Transfer\tEncoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a chunk that is no number": post(CHUNKED, body=b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk beyond all numbers": post(CHUNKED, body=b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "a negative chunk": post(CHUNKED, body=b"-1\r\nhello\r\n0\r\n\r\n"),
    "two hosts": post(b"Host: other.example"),
    "no host": post(host=b""),
    "a host that is none": post(host=b"Host: strict.example/evil"),
    "a NUL in a header": post(b"X: a\x00b"),
    "a NUL in the path": post(first=b"GET /%00 HTTP/1.1"),
    "above the root": post(first=b"GET /../admin HTTP/1.1"),
    "above the root in other words": post(first=b"GET /%2e%2e/admin HTTP/1.1"),
    "dots beside a slash that is encoded": post(first=b"GET /public/..%2fadmin HTTP/1.1"),
    "dots between slashes that are encoded": post(first=b"GET /public%2F..%2Fadmin HTTP/1.1"),
    "encoded dots beside an encoded slash": post(first=b"GET /public/%2e%2e%2Fadmin HTTP/1.1"),
    "an escape that is none": post(first=b"GET /%zz HTTP/1.1"),
    "a space in the path": post(first=b"GET /a b HTTP/1.1"),
    "a version that is none": post(first=b"GET / HTTP/9.9"),
}


@pytest.mark.parametrize("text", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_what_can_be_read_in_two_ways_is_refused_and_reaches_nobody(world: EdgeWorld, text: bytes) -> None:
    web, admin = Server(), Server()
    async with fleet(world, "web", web), fleet(world, "admin", admin):
        statuses = await world.say(text)
        assert all(400 <= status < 600 and status != 404 for status in statuses[:1]), statuses
        assert len(statuses) <= 1, "the rest is no request of its own"
        assert not web.asked
        assert not admin.asked


async def test_headers_with_an_underscore_are_dropped_since_a_backend_may_take_it_for_a_dash(world: EdgeWorld) -> None:
    web = Server()
    async with fleet(world, "web", web):
        assert await world.say(post(b"X_Forwarded_For: 6.6.6.6", b"X_Real_IP: 6.6.6.6", b"Connection: close")) == [200]
        assert not any("_" in name for name in web.asked[0].headers)
        assert web.asked[0].headers["x-real-ip"] == "127.0.0.1"


async def test_the_whole_address_in_the_first_line_goes_before_the_host(world: EdgeWorld) -> None:
    """RFC 9112 §3.2.2; the backend must not hear another name than the one by which it was found."""
    web = Server()
    async with fleet(world, "web", web):
        asked = post(b"Connection: close", first=b"GET http://strict.example/x?y HTTP/1.1", host=b"Host: other.example")
        assert await world.say(asked) == [200]
        assert web.asked[0].line == "GET /x?y HTTP/1.1"
        assert (web.asked[0].headers["host"], web.asked[0].headers["x-forwarded-host"]) == ("strict.example", "strict.example")
        other = post(b"Connection: close", first=b"GET http://nobody.example/ HTTP/1.1")
        assert await world.say(other) == [404], "nor by a Host that somebody serves"


@pytest.mark.parametrize(
    ("target", "backend"),
    [
        ("/admin/x", "admin"),
        ("/a/../admin/x", "admin"),
        ("/%61dmin/x", "admin"),
        ("//admin//x", "admin"),
        ("/./admin/x", "admin"),
        ("/a/%2e%2e/admin", "admin"),
        ("/a/.%2e/admin", "admin"),
        ("/admin%2Fx", "web"),
        ("/a%2fb", "web"),
        ("/admin;jsessionid=1", "web"),
        ("/admin/;jsessionid=1", "admin"),
        ("/Admin", "web"),
        ("/admin%20", "web"),
        ("/admin?/../x", "admin"),
        ("/a#/admin", "web"),
    ],
)
async def test_a_path_leads_where_its_elements_say_and_the_backend_gets_it_as_it_came(
    world: EdgeWorld, target: str, backend: str
) -> None:
    servers = {"web": Server(), "admin": Server()}
    async with fleet(world, "web", servers["web"]), fleet(world, "admin", servers["admin"]):
        assert await world.say(post(b"Connection: close", first=f"GET {target} HTTP/1.1".encode())) == [200]
        asked = {name: [one.line for one in server.asked] for name, server in servers.items() if server.asked}
        assert asked == {backend: [f"GET {target} HTTP/1.1"]}


async def test_nobody_goes_on_in_http_2_behind_our_back(world: EdgeWorld) -> None:
    """What follows `Upgrade: h2c` is frames that nobody here would look at."""
    web = Server()
    async with fleet(world, "web", web):
        upgrade = b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__"
        for word in (b"h2c", b"H2C", b"websocket, h2c"):
            web.asked.clear()
            asked = post(*upgrade, b"Upgrade: " + word, first=b"GET / HTTP/1.1")
            last = post(b"Connection: close", first=b"GET /admin HTTP/1.1")
            assert await world.say(asked + last) == [200, 503], "and what follows is a request like others"
            assert [("upgrade" in one.headers, one.line) for one in web.asked] == [(False, "GET / HTTP/1.1")]


async def test_requests_that_follow_each_other_on_a_connection_are_each_routed_by_themselves(world: EdgeWorld) -> None:
    web, admin = Server(), Server()
    async with fleet(world, "web", web), fleet(world, "admin", admin):
        first = post(b"Content-Length: 46", body=SMUGGLED.ljust(46)[:46])
        second = b"GET /admin HTTP/1.1\r\nHost: strict.example\r\nConnection: close\r\n\r\n"
        assert await world.say(first + second) == [200, 200]
        assert [len(web.asked), len(admin.asked)] == [1, 1]
        assert web.asked[0].body == SMUGGLED.ljust(46)[:46], "a body is a body, whatever it looks like"

"""How requests are treated on their way: second tries, times, sizes, and which endpoint gets them. One worker, so that one can count."""

import asyncio
import contextlib
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from common.testing import wait_until
from common.testing.debian import Installation
from common.testing.objects import endpoint_slice, ingress, rule
from nginx_config_renderer.annotations import PREFIX
from tests.edge.fleet import Asked, Server, busy, fleet, hangs_up, sleeps, well
from tests.edge.world import Answer, EdgeWorld, Raw, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = True

HOST = "proxy.example"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(installation: Installation) -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, installation, workers=1) as world:
            yield world


def shop(host: str = HOST, name: str = "web", **annotations: str) -> Raw:
    asked = {PREFIX + key.replace("_", "-"): value for key, value in annotations.items()}
    return ingress(name, rule(host, "/", f"{name}:80"), annotations=asked)


async def send(world: EdgeWorld, *lines: str, body: bytes = b"") -> Answer:
    """A request as it is written here."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        with contextlib.closing(writer):
            writer.write("\r\n".join([*lines, f"Host: {HOST}", "Connection: close", "", ""]).encode() + body)
            head, _, rest = (await reader.read()).decode("latin-1").partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    return Answer(int(status.split(" ")[1]), headers, rest)


async def statuses(world: EdgeWorld, count: int, *lines: str, **options: Any) -> Counter[int]:
    return Counter([(await send(world, *(lines or ("GET / HTTP/1.1",)), **options)).status for _ in range(count)])


def shares(*servers: Server) -> list[int]:
    return [len(server.asked) for server in servers]


# ---- second tries


async def test_an_endpoint_that_hangs_up_costs_nobody_an_answer(world: EdgeWorld) -> None:
    bad, good = Server(hangs_up), Server()
    async with fleet(world, "web", bad, good):
        await world.put(shop())
        assert await statuses(world, 6) == {200: 6}
        assert len(good.asked) == 6
        assert bad.asked


async def test_what_was_sent_with_a_method_that_changes_things_is_not_sent_twice_unless_asked(world: EdgeWorld) -> None:
    bad, good = Server(hangs_up), Server()
    post = ("POST / HTTP/1.1", "Content-Length: 2")
    async with fleet(world, "web", bad, good):
        await world.put(shop())
        assert (await statuses(world, 4, *post, body=b"ab"))[502] > 0
        bad.asked.clear()
        await world.put(shop(proxy_next_upstream="error timeout non_idempotent"))
        assert await statuses(world, 4, *post, body=b"ab") == {200: 4}


async def test_a_refused_connection_is_tried_elsewhere_whatever_the_method(world: EdgeWorld) -> None:
    good = Server()
    async with fleet(world, "web", good):
        refuses = endpoint_slice("web", "127.0.0.1", port=1, suffix="refuses")
        await world.put(refuses, shop())
        assert await statuses(world, 4, "POST / HTTP/1.1", "Content-Length: 2", body=b"ab") == {200: 4}
        await world.remove(refuses)


async def test_statuses_lead_to_another_endpoint_where_that_is_asked(world: EdgeWorld) -> None:
    bad, good = Server(busy), Server()
    async with fleet(world, "web", bad, good):
        await world.put(shop())
        assert set(await statuses(world, 4)) == {200, 503}
        await world.put(shop(proxy_next_upstream="error timeout http_503"))
        assert await statuses(world, 4) == {200: 4}


async def test_no_endpoint_is_tried_twice_and_no_more_than_said(world: EdgeWorld) -> None:
    servers = [Server(hangs_up) for _ in range(4)]
    async with fleet(world, "web", *servers):
        await world.put(shop())
        assert (await send(world, "GET / HTTP/1.1")).status == 502
        assert sorted(shares(*servers)) == [0, 1, 1, 1]
        await world.put(shop(proxy_next_upstream_tries="2"))
        assert (await send(world, "GET / HTTP/1.1")).status == 502
        assert sum(shares(*servers)) == 5
        await world.put(shop(proxy_next_upstream="off"))
        assert (await send(world, "GET / HTTP/1.1")).status == 502
        assert sum(shares(*servers)) == 6


async def test_time_for_second_tries_can_run_out(world: EdgeWorld) -> None:
    servers = [Server(sleeps) for _ in range(3)]
    async with fleet(world, "web", *servers):
        await world.put(shop(proxy_read_timeout="1", proxy_next_upstream_timeout="1"))
        assert (await send(world, "GET / HTTP/1.1")).status in {502, 504}
        assert sum(shares(*servers)) == 1


# ---- times and sizes


async def test_a_backend_that_is_silent_for_too_long_is_a_504(world: EdgeWorld) -> None:
    async with fleet(world, "web", Server(sleeps)):
        await world.put(shop(proxy_read_timeout="1"))
        assert (await send(world, "GET / HTTP/1.1")).status == 504


@pytest.mark.parametrize(
    ("size", "length", "status"),
    [
        (None, 1024**2, 200),
        (None, 1024**2 + 1, 413),
        ("1k", 1024, 200),
        ("1k", 1025, 413),
        ("2m", 2 * 1024**2, 200),
        ("0", 3 * 1024**2, 200),
    ],
)
async def test_a_body_may_be_as_large_as_its_ingress_says(world: EdgeWorld, size: str | None, length: int, status: int) -> None:
    server = Server()
    async with fleet(world, "web", server):
        await world.put(shop(**({"proxy_body_size": size} if size else {})))
        answer = await send(world, "POST / HTTP/1.1", f"Content-Length: {length}", body=b"x" * length)
        assert answer.status == status
        assert [len(asked.body) for asked in server.asked] == ([length] if status == 200 else [])


@pytest.mark.parametrize(
    ("size", "length", "status"), [(None, 1024**2 + 1, 413), ("1k", 1024**2 + 1, 413), ("8m", 2 * 1024**2, 200)]
)
async def test_a_body_without_a_length_is_cut_off_too(world: EdgeWorld, size: str | None, length: int, status: int) -> None:
    async with fleet(world, "web", Server()):
        await world.put(shop(**({"proxy_body_size": size} if size else {})))
        body = f"{length:x}\r\n".encode() + b"x" * length + b"\r\n0\r\n\r\n"
        assert (await send(world, "POST / HTTP/1.1", "Transfer-Encoding: chunked", body=body)).status == status


async def test_a_body_is_kept_until_it_is_whole_or_passed_on_at_once_as_asked(world: EdgeWorld) -> None:
    for buffering, begins in (("on", False), ("off", True)):
        server = Server()
        async with fleet(world, "web", server):
            await world.put(shop(proxy_request_buffering=buffering))
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            with contextlib.closing(writer):
                head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + b"ab")
                assert await _begins(server) is begins
                writer.write(b"cd")
                assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)


async def _begins(server: Server) -> bool:
    try:
        await wait_until(lambda: server.begun, within=0.5)
    except AssertionError:
        return False
    return True


async def test_an_answer_that_is_compressed_is_passed_on_as_it_is(world: EdgeWorld) -> None:
    packed = gzip.compress(b"words" * 1000)

    async def packs(asked: Asked) -> bytes | None:
        return f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode() + packed

    async with fleet(world, "web", Server(packs)):
        await world.put(shop(proxy_buffering="on"))
        answer = await send(world, "GET / HTTP/1.1", "Accept-Encoding: gzip")
        assert answer.body.encode("latin-1") == packed


@pytest.mark.parametrize("asked", [{}, {"proxy_body_size": "8m"}, {"proxy_buffering": "on"}])
async def test_a_status_that_the_edge_uses_itself_is_passed_on_from_a_backend_as_it_came(
    world: EdgeWorld, asked: dict[str, str]
) -> None:
    async def brews(asked: Asked) -> bytes | None:
        return b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 5\r\nX-Pot: tea\r\n\r\nshort"

    teapot = Server(brews)
    async with fleet(world, "web", teapot):
        await world.put(shop(**asked))
        for codes, seen in (None, 1), ({"custom-http-errors": "404,502"}, 2):
            await world.configure(codes)
            answer = await send(world, "POST / HTTP/1.1", "Content-Length: 2", body=b"ab")
            assert (answer.status, answer.headers.get("x-pot"), answer.body) == (418, "tea", "short")
            assert [one.body for one in teapot.asked] == [b"ab"] * seen, "it is asked once"
        await world.configure(None)


@pytest.mark.parametrize("to", ["/elsewhere", "@503"])
async def test_a_backend_leads_no_request_of_its_own_accord_to_another_place_of_the_edge(world: EdgeWorld, to: str) -> None:
    async def leads(asked: Asked) -> bytes | None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Accel-Redirect: " + to.encode() + b"\r\n\r\nok"

    server = Server(leads)
    async with fleet(world, "web", server):
        await world.put(shop())
        answer = await send(world, "GET / HTTP/1.1")
        assert (answer.status, answer.body, len(server.asked)) == (200, "ok", 1)


# ---- which endpoint


async def test_endpoints_take_turns(world: EdgeWorld) -> None:
    servers = [Server() for _ in range(3)]
    async with fleet(world, "web", *servers):
        await world.put(shop())
        await statuses(world, 9)
        assert shares(*servers) == [3, 3, 3]


async def test_the_least_busy_endpoint_is_asked(world: EdgeWorld) -> None:
    opened = asyncio.Event()

    async def waits(asked: Asked) -> bytes | None:
        await opened.wait()
        return await well(asked)

    slow, quick = Server(waits), Server()
    async with fleet(world, "web", slow, quick):
        await world.put(shop(load_balance="least_conn"))
        async with asyncio.TaskGroup() as group:
            first = [group.create_task(send(world, "GET / HTTP/1.1")) for _ in range(2)]
            await wait_until(lambda: slow.asked)
            await wait_until(lambda: any(task.done() for task in first))
            assert await statuses(world, 6) == {200: 6}
            assert len(slow.asked) == 1
            opened.set()
        quick.asked.clear()
        await statuses(world, 6)
        assert shares(slow, quick) == [4, 3]


async def test_the_quicker_endpoint_is_asked_more_often(world: EdgeWorld) -> None:
    async def lingers(asked: Asked) -> bytes | None:
        await asyncio.sleep(0.1)  # it is what such a server does
        return await well(asked)

    slow, quick = Server(lingers), Server()
    async with fleet(world, "web", slow, quick):
        await world.put(shop(load_balance="ewma"))
        await statuses(world, 30)
        assert len(slow.asked) <= 3
        assert slow.asked


async def test_what_hashes_alike_goes_to_one_endpoint_and_little_moves_when_one_is_added(world: EdgeWorld) -> None:
    servers = [Server() for _ in range(4)]
    lines = [("GET / HTTP/1.1", f"X-User: {number}") for number in range(60)]

    async def owners() -> dict[int, int]:
        for server in servers:
            server.asked.clear()
        for line in lines:
            await send(world, *line)
        return {int(asked.headers["x-user"]): server.port for server in servers for asked in server.asked}

    async with fleet(world, "web", *servers) as slices:
        await world.put(shop(upstream_hash_by="$http_x_user"))
        before = await owners()
        assert await owners() == before
        assert set(before.values()) == {server.port for server in servers}
        await world.remove(slices[-1])
        after = await owners()
        moved = {user for user in before if before[user] != after[user]}
        assert moved == {user for user, port in before.items() if port == servers[-1].port}


async def test_a_client_stays_at_its_endpoint_by_a_cookie_and_finds_another_when_that_is_gone(world: EdgeWorld) -> None:
    servers = [Server() for _ in range(3)]
    for mode in ("balanced", "persistent"):
        async with fleet(world, "web", *servers) as slices:
            await world.put(shop(affinity="cookie", affinity_mode=mode, session_cookie_name="at", session_cookie_max_age="60"))
            answer = await send(world, "GET / HTTP/1.1")
            cookie, _, attributes = answer.headers["set-cookie"].partition("; ")
            assert attributes == "Path=/; Max-Age=60; HttpOnly"
            mine = next(server for server in servers if server.asked)
            for _ in range(5):
                assert "set-cookie" not in (await send(world, "GET / HTTP/1.1", f"Cookie: {cookie}")).headers
            assert len(mine.asked) == 6
            await world.remove(slices[servers.index(mine)])
            answer = await send(world, "GET / HTTP/1.1", f"Cookie: {cookie}")
            assert answer.status == 200
            assert ("set-cookie" in answer.headers) is (mode == "persistent")
            for server in servers:
                server.asked.clear()


@pytest.mark.parametrize("status", [204, 302, 401, 404, 500, 503])
async def test_a_client_gets_its_cookie_whatever_the_status_of_the_answer(world: EdgeWorld, status: int) -> None:
    async def answers(asked: Asked) -> bytes | None:
        return f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n".encode()

    async with fleet(world, "web", Server(answers), Server(answers)):
        await world.put(shop(affinity="cookie"))
        answer = await send(world, "GET / HTTP/1.1")
        assert answer.status == status
        assert answer.headers["set-cookie"].startswith("INGRESSCOOKIE=")


async def test_a_forged_cookie_chooses_nothing_and_is_replaced(world: EdgeWorld) -> None:
    async with fleet(world, "web", Server(), Server()):
        await world.put(shop(affinity="cookie"))
        for forged in ("x", "|", "a|b", "|" * 500):
            assert "set-cookie" in (await send(world, "GET / HTTP/1.1", f"Cookie: INGRESSCOOKIE={forged}")).headers


# ---- endpoints that fail


async def test_an_endpoint_that_fails_in_a_row_rests_and_the_last_one_never(world: EdgeWorld) -> None:
    bad, good = Server(hangs_up), Server()
    async with fleet(world, "web", bad, good) as slices:
        await world.put(shop())
        assert await statuses(world, 20) == {200: 20}
        assert len(bad.asked) == 3
        await world.remove(slices[1])
        assert await statuses(world, 4) == {502: 4}
        assert len(bad.asked) == 7


async def test_an_answer_is_no_failure_whatever_its_status(world: EdgeWorld) -> None:
    bad, good = Server(busy), Server()
    async with fleet(world, "web", bad, good):
        await world.put(shop(proxy_next_upstream="error timeout http_503"))
        assert await statuses(world, 12) == {200: 12}
        assert len(bad.asked) >= 11, "it never rests"


async def test_an_endpoint_that_answers_again_has_a_clean_slate(world: EdgeWorld) -> None:
    moody, good = Server(hangs_up), Server()
    async with fleet(world, "web", moody, good):
        await world.put(shop())
        await wait_until(lambda: _once_more(world, lambda: len(moody.asked) == 2))
        moody.behave = well
        await wait_until(lambda: _once_more(world, lambda: len(moody.asked) == 3))
        moody.behave = hangs_up
        await wait_until(lambda: _once_more(world, lambda: len(moody.asked) == 5))
        moody.behave = well
        assert await statuses(world, 4) == {200: 4}
        assert len(moody.asked) == 7


async def _once_more(world: EdgeWorld, condition: Any) -> bool:
    if not condition():
        await send(world, "GET / HTTP/1.1")
    return bool(condition())


async def test_connections_to_backends_are_kept_and_used_again(world: EdgeWorld) -> None:
    server = Server()
    async with fleet(world, "web", server):
        await world.put(shop())
        await statuses(world, 5)
        assert server.connections == 1

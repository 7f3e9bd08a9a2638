"""Clients as users have them: WebSocket, server-sent events, HTTP/2 and gRPC, with libraries that know nothing of us."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from common.testing import wait_until
from common.testing.authority import Authority
from common.testing.debian import Installation
from common.testing.objects import endpoint_slice, ingress, opaque_secret, rule, service, tls_secret
from nginx_config_renderer import keypairs
from nginx_config_renderer.annotations import PREFIX
from tests.edge.fleet import Asked, Server, fleet
from tests.edge.world import SOON, EdgeWorld, Raw, edge, open_directory

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = True

AUTHORITY = Authority()
HOST = "client.example"
CERT = AUTHORITY.issue(HOST)
BACKEND = AUTHORITY.issue("web.default.svc")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(installation: Installation) -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, installation, workers=1) as world:
            world.feed(tls_secret("cert", CERT))
            learn(world, "cert", CERT.data)
            yield world


def learn(world: EdgeWorld, name: str, data: Mapping[str, bytes]) -> None:
    world._take(world.wanted.learn(keypairs.read("default", name, data)))


def shop(**asked: str) -> Raw:
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in asked.items()}
    made = ingress("shop", rule(HOST, "/", "web:80"), annotations={f"{PREFIX}ssl-redirect": "false"} | annotations)
    made["spec"]["tls"] = [{"hosts": [HOST], "secretName": "cert"}]
    return made


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=AUTHORITY.certificate.decode())


@contextmanager
def files() -> Iterator[tuple[Path, Path]]:
    """The backend's certificate and key."""
    with tempfile.TemporaryDirectory() as directory:
        pair = Path(directory) / "crt", Path(directory) / "key"
        for path, data in zip(pair, (BACKEND.certificate, BACKEND.key), strict=True):
            path.write_bytes(data)
        yield pair


async def lead(world: EdgeWorld, port: int, **asked: str) -> None:
    """The site leads to that port."""
    await world.put(shop(**asked), service("web"), endpoint_slice("web", "127.0.0.1", port=port))


# ---- WebSocket (RFC 6455)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
async def test_websockets_carry_messages_of_any_size_both_ways(world: EdgeWorld, tls: bool) -> None:
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server, asyncio.timeout(SOON):
        await lead(world, next(iter(server.sockets)).getsockname()[1])
        port, scheme = (world.settings.https_port, "wss") if tls else (world.port, "ws")
        more: dict[str, Any] = {"ssl": trusting()} if tls else {}
        async with connect(f"{scheme}://{HOST}:{port}/chat", host="127.0.0.1", max_size=None, proxy=None, **more) as client:
            for message in ("hello", b"\x00\xff" * 1000, "x" * 3_000_000):
                await client.send(message)
                assert await client.recv() == message
            await (await client.ping())


async def test_a_websocket_outlives_changes_of_its_route_and_of_its_endpoints(world: EdgeWorld) -> None:
    async with serve(echo, "127.0.0.1", 0) as server, asyncio.timeout(SOON):
        port = next(iter(server.sockets)).getsockname()[1]
        await lead(world, port)
        async with connect(f"ws://{HOST}:{world.port}/", host="127.0.0.1", proxy=None) as client:
            await world.put(endpoint_slice("web", "127.0.0.1", port=1), shop(proxy_read_timeout="5"))
            await client.send("still here")
            assert await client.recv() == "still here"


# ---- HTTP/2 (RFC 9113) and server-sent events


@asynccontextmanager
async def client_of(world: EdgeWorld, *, http2: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client that finds the host at the edge."""
    edge = f"https://127.0.0.1:{world.settings.https_port}"
    async with httpx.AsyncClient(http2=http2, verify=trusting(), trust_env=False, base_url=edge) as made:
        yield made


TO_HOST: Any = {"headers": {"Host": HOST}, "extensions": {"sni_hostname": HOST}}


async def test_many_requests_share_one_connection_of_http_2(world: EdgeWorld) -> None:
    async def tells(asked: Asked) -> bytes | None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(asked.body), asked.body)

    async with fleet(world, "web", Server(tells)):
        await world.put(shop())
        async with client_of(world) as client, asyncio.timeout(SOON):
            bodies = [f"body {number}" * 500 for number in range(50)]
            answers = await asyncio.gather(*(client.post(f"/{at}", content=body, **TO_HOST) for at, body in enumerate(bodies)))
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        assert [answer.text for answer in answers] == bodies


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_server_sent_events_come_one_by_one(world: EdgeWorld, http2: bool) -> None:
    go_on = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: one\n\n")
        await go_on.wait()
        writer.write(b"data: two\n\n")
        writer.close()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    async with server, client_of(world, http2=http2) as client, asyncio.timeout(SOON):
        await lead(world, server.sockets[0].getsockname()[1])
        async with client.stream("GET", "/events", **TO_HOST) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "data: one"
            go_on.set()
            assert [line async for line in lines if line] == ["data: two"]


# ---- gRPC


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """A service of four methods, one of each kind, in bytes."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return {
            "/t.T/Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "/t.T/Down": grpc.unary_stream_rpc_method_handler(self.down),
            "/t.T/Up": grpc.stream_unary_rpc_method_handler(self.up),
            "/t.T/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/t.T/Fail": grpc.unary_unary_rpc_method_handler(self.fail),
        }.get(details.method)

    async def unary(self, request: bytes, context: Any) -> bytes:
        told = dict(context.invocation_metadata())
        context.set_trailing_metadata((("x-after", "all"),))
        return request + str(told.get("x-mine", "")).encode()

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(3):
            yield request + str(number).encode()

    async def up(self, requests: Any, context: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def both(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.upper()

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this")
        return b""


@asynccontextmanager
async def grpc_server(*, tls: bool) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Calls(),))
    credentials = grpc.ssl_server_credentials([(BACKEND.key, BACKEND.certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials) if tls else server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@asynccontextmanager
async def channel_to(world: EdgeWorld) -> AsyncIterator[grpc.aio.Channel]:
    options = (("grpc.ssl_target_name_override", HOST), ("grpc.default_authority", HOST), ("grpc.enable_http_proxy", 0))
    credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{world.settings.https_port}", credentials, options) as channel:
        yield channel


@pytest.mark.parametrize("protocol", ["GRPC", "GRPCS", "GRPCS, which must prove who it is"])
async def test_grpc_calls_of_every_kind_go_through_with_their_metadata(world: EdgeWorld, protocol: str) -> None:
    asked = {"proxy_ssl_secret": "ca", "proxy_ssl_verify": "on"} if "prove" in protocol else {}
    async with grpc_server(tls=protocol != "GRPC") as port, channel_to(world) as channel, asyncio.timeout(SOON):
        await lead(world, port, backend_protocol=protocol.partition(",")[0], **asked)
        world.feed(opaque_secret("ca", {"ca.crt": AUTHORITY.certificate}))
        learn(world, "ca", {"ca.crt": AUTHORITY.certificate})
        await world.secure()
        call = channel.unary_unary("/t.T/Unary")(b"hello ", metadata=(("x-mine", "you"),))
        assert await call == b"hello you"
        assert dict(await call.trailing_metadata() or ())["x-after"] == "all"
        assert [one async for one in channel.unary_stream("/t.T/Down")(b"n")] == [b"n0", b"n1", b"n2"]
        assert await channel.stream_unary("/t.T/Up")(iter([b"a", b"b", b"c"])) == b"abc"
        both = channel.stream_stream("/t.T/Both")()
        for word in (b"one", b"two"):
            await both.write(word)
            assert await both.read() == word.upper(), "an answer comes while the call is still open"
        await both.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/t.T/Fail")(b"")
        assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not like this")


async def test_a_grpc_client_is_told_that_nobody_is_there(world: EdgeWorld) -> None:
    async with channel_to(world) as channel, asyncio.timeout(SOON):
        await lead(world, 1, backend_protocol="GRPC")
        await world.put(endpoint_slice("web"))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/t.T/Unary")(b"")
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_grpc_calls_find_new_endpoints_without_a_reload(world: EdgeWorld) -> None:
    async with grpc_server(tls=False) as first, channel_to(world) as channel, asyncio.timeout(SOON):
        await lead(world, first, backend_protocol="GRPC")
        assert await channel.unary_unary("/t.T/Unary")(b"one") == b"one"
        async with grpc_server(tls=False) as second:
            before = (await world.admin.status()).fingerprint
            await lead(world, second, backend_protocol="GRPC")
            assert await channel.unary_unary("/t.T/Unary")(b"two") == b"two"
            assert (await world.admin.status()).fingerprint == before


async def test_https_backends_keep_their_connections(world: EdgeWorld) -> None:
    seen: set[Any] = set()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.add(writer.get_extra_info("peername"))
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with files() as (certificate, key):
        context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(answers, "127.0.0.1", 0, ssl=context)
    async with server, asyncio.timeout(SOON):
        await lead(world, server.sockets[0].getsockname()[1], backend_protocol="HTTPS")
        await wait_until(lambda: _well(world))
        for _ in range(10):
            assert (await world.ask(HOST)).status == 200
        assert len(seen) == 1
        server.close()
        await world.put(endpoint_slice("web"))


async def _well(world: EdgeWorld) -> bool:
    return (await world.ask(HOST)).status == 200

"""An edge that is told to leave: nobody loses a request by it, and nobody keeps it for ever. With what keeps nginx in its container."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from common.testing import wait_until
from common.testing.debian import Installation
from common.testing.objects import endpoint_slice, ingress, rule, service
from tests.edge.world import SOON, EdgeWorld, edge, open_directory

BOTH = True
HOST = "shop.example"
SHOP = ingress("shop", rule(HOST, "/", "web:80"))


async def test_a_rolling_restart_of_two_edges_fails_no_request_of_a_client_that_tries_the_next_one(
    installation: Installation,
) -> None:
    async with AsyncExitStack() as stack:
        worlds = [await stack.enter_async_context(_contained(installation)) for _ in range(2)]
        for world in worlds:
            await world.put(SHOP, service("web"), *await world.serve("web"))
        seen: Counter[str] = Counter()
        visitors = [asyncio.create_task(_visit(worlds, seen)) for _ in range(8)]
        for world in worlds:
            starts, before = world.nginx.starts, seen["answered"]
            os.kill(world.nginx.pid or 0, signal.SIGTERM)
            await wait_until(lambda: _is_back(world, starts), within=SOON)  # noqa: B023 it is called here alone
            await wait_until(lambda: seen["answered"] > before + 100, within=SOON)  # noqa: B023
        for visitor in visitors:
            visitor.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)
        assert seen["elsewhere"] > 0, "some had to go to the other one"
        assert {what: count for what, count in seen.items() if what not in {"answered", "elsewhere"}} == {}


async def _is_back(world: EdgeWorld, starts: int) -> bool:
    return world.nginx.starts > starts and world.settings.admin_socket.is_socket() and (await world.ask(HOST)).by == "web"


async def _visit(worlds: Sequence[EdgeWorld], seen: Counter[str]) -> None:
    """Asks without a pause, the first edge that is said to be ready; where nobody listens, the next one."""
    while True:
        ready = [world for world in worlds if world.settings.admin_socket.is_socket()]
        seen["elsewhere"] += ready[:1] != [worlds[0]]
        for world in ready or worlds:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            except ConnectionRefusedError:
                continue
            with contextlib.closing(writer):
                writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                try:
                    line = (await reader.read()).partition(b"\r\n")[0]
                except OSError as error:
                    line = str(error).encode()
            seen["answered" if line == b"HTTP/1.1 200 OK" else line.decode()] += 1
            break
        else:
            seen["nobody listens"] += 1
        await asyncio.sleep(0)


@asynccontextmanager
async def _contained(installation: Installation) -> AsyncIterator[EdgeWorld]:
    with open_directory() as directory:
        async with edge(directory, installation, contained=True) as world:
            yield world


async def test_an_upgraded_connection_goes_on_after_that_and_ends_when_its_time_is_over(
    tmp_path: Path, installation: Installation
) -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            while True:
                writer.write(await reader.readexactly(1))

    server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
    async with server, edge(tmp_path, installation, contained=True, worker_shutdown_timeout=3) as world:
        await world.put(SHOP, service("web"), endpoint_slice("web", "127.0.0.1", port=server.sockets[0].getsockname()[1]))
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        os.kill(world.nginx.pid or 0, signal.SIGTERM)

        async def refused() -> bool:
            try:
                _, other = await asyncio.open_connection("127.0.0.1", world.port)
            except OSError:
                return True
            other.close()
            return False

        await wait_until(refused, within=SOON)
        for byte in (b"a", b"b"):
            writer.write(byte)
            assert await reader.readexactly(1) == byte, "what was there goes on while nobody new is taken"
        async with asyncio.timeout(SOON):
            assert await reader.read() == b"", "but not for ever"
        writer.close()
        await wait_until(lambda: _is_up_again(world), within=SOON)


async def _is_up_again(world: EdgeWorld) -> bool:
    return world.nginx.starts > 1 and world.settings.admin_socket.is_socket()

"""Backends that behave as a test wants, and remember what they were asked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from common.testing.objects import endpoint_slice, service
from tests.edge.world import EdgeWorld, Raw


@dataclass(frozen=True)
class Asked:
    """A request as a backend got it. `connection` counts those of the server; headers are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


Behaviour: TypeAlias = Callable[[Asked], Awaitable[bytes | None]]


async def well(asked: Asked) -> bytes | None:
    """Answers 200."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def busy(asked: Asked) -> bytes | None:
    """Answers 503."""
    return b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"


async def hangs_up(asked: Asked) -> bytes | None:
    """Closes the connection instead of an answer."""
    return None


async def sleeps(asked: Asked) -> bytes | None:
    """Never answers."""
    await asyncio.Event().wait()
    return None


@dataclass
class Server:
    """One endpoint. `begun` counts the requests whose head arrived."""

    behave: Behaviour = well
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    begun: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)
        number = self.connections
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError), contextlib.closing(writer):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                self.begun += 1
                headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = await _body(reader, headers)
                self.asked.append(Asked(first, headers, body, number))
                answer = await self.behave(self.asked[-1])
                if answer is None:
                    return
                writer.write(answer)

    async def hang_up(self) -> None:
        """Closes all connections."""
        serving = tuple(self.serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += (await reader.readexactly(size + 2))[:size]
    await reader.readline()
    return body


@asynccontextmanager
async def fleet(world: EdgeWorld, name: str, *servers: Server) -> AsyncIterator[list[Raw]]:
    """A Service whose endpoints are `servers`, for as long as the block runs. Its EndpointSlices, one a server, are given."""
    async with AsyncExitStack() as stack:
        for server in servers:
            listening = await asyncio.start_server(server.serve, "127.0.0.1", server.port)
            server.port = listening.sockets[0].getsockname()[1]
            stack.push_async_callback(server.hang_up)
            stack.callback(listening.close)
        slices = [endpoint_slice(name, "127.0.0.1", port=server.port, suffix=str(at)) for at, server in enumerate(servers)]
        await world.put(service(name), *slices)
        try:
            yield slices
        finally:
            await world.remove(service(name), *slices)

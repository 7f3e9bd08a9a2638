"""The backends of the recorded cases: each Service behaves as the one of that name did when the answers were recorded.

`a`, `b`, `c` are three servers each that tell what they saw, `err` always answers 503, `dead` closes without an answer, `slow` takes three
seconds, `mix` is one `err` and two that tell, `mixdead` one `dead` and two that tell, `none` has no endpoints, and `missing` is no Service.
`tls` tells by HTTPS, with a certificate for tls.default.svc from an authority that stands in the Secret `ca`.
"""

import asyncio
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from common.testing.authority import Authority
from common.testing.objects import endpoint_slice, service
from tests.edge.world import Raw

TELLS, FAILS, CLOSES, DELAYS = "tells", "fails", "closes", "delays"
DELAY = 3.0
SERVICES: dict[str, tuple[str, ...]] = {
    "a": (TELLS, TELLS, TELLS),
    "b": (TELLS, TELLS, TELLS),
    "c": (TELLS, TELLS, TELLS),
    "err": (FAILS,),
    "dead": (CLOSES,),
    "mix": (FAILS, TELLS, TELLS),
    "mixdead": (CLOSES, TELLS, TELLS),
    "slow": (DELAYS,),
    "none": (),
}
AUTHORITY = Authority()


async def _answer(name: str, number: int, head: Sequence[str], body: bytes) -> bytes:
    method, target, version = head[0].split(" ", 2)
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in head[1:] if ": " in line)}
    seen = {"backend": name, "server": number, "method": method, "target": target, "version": version, "len": len(body)}
    told = json.dumps(seen | {"headers": headers}).encode()
    status, more = 200, ""
    path = target.partition("?")[0]
    if path.startswith("/status/"):
        status = int(path.rpartition("/")[2])
    elif path.endswith("/redir"):
        status, more = 302, f"Location: http://{headers.get('host', '')}/there\r\n"
    elif path.endswith("/cookie"):
        more = "Set-Cookie: one=1; Path=/; Domain=inner.test\r\nSet-Cookie: two=2; Path=/app\r\n"
    if status == 204:
        return f"HTTP/1.1 204 No Content\r\n{more}\r\n".encode()
    return f"HTTP/1.1 {status} Status\r\nContent-Length: {len(told)}\r\n{more}\r\n".encode() + told


@asynccontextmanager
async def _server(name: str, number: int, kind: str, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                length = next((int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(length)
                if kind == CLOSES:
                    return
                if kind == DELAYS:
                    await asyncio.sleep(DELAY)  # it is what such a server does
                if kind == FAILS:
                    writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
                else:
                    writer.write(await _answer(name, number, head, body))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _shows(*names: str) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for some hosts."""
    issued = AUTHORITY.issue(*names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(issued.certificate + issued.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@asynccontextmanager
async def backends() -> AsyncIterator[list[Raw]]:
    """All Services with their endpoints, while the servers run."""
    async with AsyncExitStack() as stack:
        objects: list[Raw] = []
        for name, kinds in SERVICES.items():
            objects.append(service(name, "http:80"))
            for number, kind in enumerate(kinds):
                port = await stack.enter_async_context(_server(name, number, kind))
                objects.append(endpoint_slice(name, "127.0.0.1", port=port, port_name="http", suffix=str(number)))
        port = await stack.enter_async_context(_server("tls", 0, TELLS, _shows("tls.default.svc")))
        objects += [service("tls", 443), endpoint_slice("tls", "127.0.0.1", port=port)]
        yield objects

"""Endpoints that cost the measuring process nothing: nginx, in the network of the endpoints."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from common.process import Child
from tests.lb.world import SOON, Network

PORT: Final = 8080
MEGABYTE: Final = 2**20

_NGINX: Final = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ {listen} root {root}; }}
}}
"""


@asynccontextmanager
async def served(net: Network, nginx: str, directory: Path, addresses: Sequence[str]) -> AsyncIterator[None]:
    """Nginx at these addresses, with a small file and one of a megabyte."""
    _lay_out(directory, addresses)
    command = [*net.backs.enter, nginx, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"]
    async with kept(Child("nginx", command)):
        yield


def _lay_out(directory: Path, addresses: Sequence[str]) -> None:
    """What nginx reads, as a user of its own."""
    (directory / "small").write_text("ok\n")
    (directory / "large").write_bytes(bytes(MEGABYTE))
    directory.chmod(0o755)
    directory.parent.chmod(0o755)
    listen = " ".join(f"listen {address}:{PORT};" for address in addresses)
    (directory / "nginx.conf").write_text(_NGINX.format(listen=listen, root=directory))


@asynccontextmanager
async def kept(child: Child) -> AsyncIterator[None]:
    """Keeps a program running."""
    task = asyncio.create_task(child.run())
    try:
        yield
    finally:
        await child.stop(SOON)
        await task


async def answers(net: Network, address: str, port: int) -> bool:
    """Whether a client gets the small file there."""
    with suppress(OSError, TimeoutError):
        made = await net.clients.socket(socket.AF_INET)
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
            reader, writer = await asyncio.open_connection(sock=made)
            writer.write(b"GET /small HTTP/1.0\r\n\r\n")
            return (await reader.read()).startswith(b"HTTP/1.1 200")
    return False

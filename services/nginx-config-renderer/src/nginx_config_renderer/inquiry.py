"""Inquiry: asks nginx what becomes of a request, without its being made.

The request is sent as it stands to a socket of nginx's own, where the program answers with what it decides (lua/seaway/explain.lua); so
it is nginx that reads host, path and headers, as it reads a client's.
"""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Final

from common.contracts.edge import Request
from nginx_config_renderer.admin import Absent

_DEADLINE: Final = 5.0
_MOST: Final = 4 * 1024 * 1024  # bytes of an answer


class RefusedError(Exception):
    """nginx does not take the request: it is no HTTP, or too large."""


async def inquire(socket: Path, request: Request, deadline: float = _DEADLINE) -> dict[str, Any]:
    """What nginx's program says. Raises Absent, or RefusedError with what every client would be told."""
    try:
        async with asyncio.timeout(deadline):
            whole = await _exchange(socket, _as_http(request))
    except (OSError, TimeoutError, asyncio.LimitOverrunError) as error:
        raise Absent(f"nginx does not answer at {socket}: {str(error) or type(error).__name__}") from error
    head, _, body = whole.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        said = head.split(b"\r\n", 1)[0].decode("latin-1")
        raise RefusedError(f"nginx itself refuses such a request: {said or 'it closes the connection'}")
    try:
        answer: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise Absent(f"nginx's answer cannot be read: {error}") from error
    return answer


def _as_http(request: Request) -> bytes:
    # The answer to HEAD has no body, and nothing is decided by it that is not by GET.
    method = "GET" if request.method == "HEAD" else request.method
    lines = [f"{method} {request.path} HTTP/1.1", f"Host: {request.host}", "Connection: close"]
    lines += [f"Seaway-Asked-Scheme: {request.scheme}"]
    lines += [f"Seaway-Asked-Sni: {request.sni}"] if request.sni else []
    lines += [f"{name}: {value}" for name, value in request.headers]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", errors="surrogateescape")


async def _exchange(socket: Path, question: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(question)
        await writer.drain()
        whole = b""
        while len(whole) < _MOST and (more := await reader.read(65536)):
            whole += more
        return whole
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

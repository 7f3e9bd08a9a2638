"""Edges: what is asked, what is believed, and how soon."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.testing import wait_until
from keepalived_vip.edges import Edge, Edges, Patience, ask, parse_edge

QUICK = Patience(every=0.01, deadline=1, fall=2, rise=3)


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[int]:
    """A server that gives these answers one after the other, the last one for ever; its port."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1024)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def watched(edge: str) -> AsyncIterator[Edges]:
    edges = Edges([parse_edge(edge)], QUICK)
    task = asyncio.create_task(edges.run())
    try:
        yield edges
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


OK = b"HTTP/1.0 200 OK\r\n\r\n"
BUSY = b"HTTP/1.0 503 Busy\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "edge"),
    [
        ("tcp:127.0.0.1:80", Edge("tcp:127.0.0.1:80", "127.0.0.1", 80)),
        ("http://127.0.0.1:9100", Edge("http://127.0.0.1:9100", "127.0.0.1", 9100, path="/readyz")),
        ("http://[::1]:9100/status?x=1", Edge("http://[::1]:9100/status?x=1", "::1", 9100, path="/status?x=1")),
        ("unix:/run/lb.sock", Edge("unix:/run/lb.sock", socket="/run/lb.sock", path="/readyz")),
    ],
)
def test_an_edge_is_read(text: str, edge: Edge) -> None:
    assert parse_edge(text) == edge


@pytest.mark.parametrize("text", ["", "tcp:80", "tcp:host:99999", "https://host:1", "http://host:1/a b", "unix:relative"])
def test_what_is_no_edge_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="tcp:HOST:PORT"):
        parse_edge(text)


async def test_only_200_is_ready() -> None:
    for answer, fault in ((OK, None), (BUSY, "it answers 503"), (b"SSH-2.0", "it does not speak HTTP")):
        async with answering(answer) as port:
            assert await ask(parse_edge(f"http://127.0.0.1:{port}")) == fault


async def test_one_bad_answer_among_good_ones_changes_nothing() -> None:
    async with answering(OK, OK, BUSY, OK, BUSY, OK) as port, watched(f"http://127.0.0.1:{port}") as edges:
        await wait_until(lambda: edges.asked and not edges.unready)
        edges.changed.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(edges.changed.wait(), 0.3)


async def test_an_edge_that_goes_on_saying_no_is_not_ready_and_one_that_is_gone_at_once() -> None:
    async with answering(OK, BUSY) as port, watched(f"http://127.0.0.1:{port}") as edges:
        await wait_until(lambda: "it answers 503" in edges.unready.values())
    async with watched(f"tcp:127.0.0.1:{port}") as edges:
        await wait_until(lambda: "nobody listens there" in edges.unready.values())

"""The local edges: whether what clients reach at our addresses is ready on this machine.

    tcp:127.0.0.1:80            ready if it can be connected to
    http://127.0.0.1:9100       ready if /readyz answers 200; a path of its own may follow
    unix:/run/seaway/lb.sock    the same, over a unix socket

An edge that refuses a connection is gone, and is believed at once. One that does not answer, or says "not ready", is asked again: only
after `fall` times is it not ready, and after `rise` good answers it is again. Silence counts for nothing where we were late ourselves: on a
machine that is short of processors it would speak of us and not of the edge.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from keepalived_vip import metrics

_PATH: Final = "/readyz"
_UNASKED: Final = "it has not been asked yet"
_HTTP: Final = re.compile(r"http://(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\s\[\]]+):(?P<port>[0-9]{1,5})(?P<path>/\S*)?")
_TCP: Final = re.compile(r"tcp:(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\s\[\]]+):(?P<port>[0-9]{1,5})")
_LATE: Final = 0.05  # seconds
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Edge:
    """Where an edge is asked. `path` is empty where a connection is answer enough; `socket` is that of a unix socket."""

    name: str
    host: str = ""
    port: int = 0
    socket: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How edges are asked: every so many seconds, with a deadline; and how many answers against what is believed change that."""

    every: float
    deadline: float
    fall: int
    rise: int


def parse_edge(text: str) -> Edge:
    """An edge as the settings have it. Raises ValueError."""
    if text.startswith("unix:/"):
        return Edge(text, socket=text.removeprefix("unix:"), path=_PATH)
    for pattern, path in ((_HTTP, _PATH), (_TCP, "")):
        found = pattern.fullmatch(text)
        if found is not None and int(found["port"]) < 65536:
            own = found.groupdict().get("path")
            return Edge(text, found["host"].strip("[]"), int(found["port"]), path=own or path)
    raise ValueError(f"{text!r} is none of tcp:HOST:PORT, http://HOST:PORT[/PATH] and unix:PATH")


class Gone(Exception):
    """Nobody listens there."""


async def ask(edge: Edge) -> str | None:
    """None if it is ready, or what is wrong. Raises Gone."""
    try:
        reader, writer = await (
            asyncio.open_unix_connection(edge.socket) if edge.socket else asyncio.open_connection(edge.host, edge.port)
        )
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise Gone("nobody listens there") from error
    except ConnectionResetError as error:
        # Somebody listens there, and has hung up already, as HAProxy does with whoever asks for no Service.
        return f"it broke the connection ({error.strerror or error})" if edge.path else None
    except OSError as error:
        return f"it cannot be connected to ({error.strerror or error})"
    try:
        return await _request(edge, reader, writer) if edge.path else None
    except OSError as error:
        return f"it broke the connection ({error.strerror or error})"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _request(edge: Edge, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
    writer.write(f"GET {edge.path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    answer = await reader.read(4096)
    status = _STATUS.match(answer)
    if status is None:
        return "it does not speak HTTP"
    return None if status[1] == b"200" else f"it answers {status[1].decode()}"


class Edges:
    """Asks all edges again and again. `changed` is set when one is ready or is so no more."""

    def __init__(self, edges: Iterable[Edge], patience: Patience) -> None:
        self.changed = asyncio.Event()
        self._edges = tuple(edges)
        self._patience = patience
        self._faults: dict[str, str] = {edge.name: _UNASKED for edge in self._edges}
        # The first answer is believed, whatever it is.
        self._counts: dict[str, int] = {edge.name: patience.rise - 1 for edge in self._edges}

    @property
    def unready(self) -> dict[str, str]:
        """What is wrong with which edge."""
        return dict(self._faults)

    @property
    def asked(self) -> bool:
        """Whether every edge has answered, or failed to, often enough to be judged."""
        return all(fault != _UNASKED for fault in self._faults.values())

    async def run(self) -> None:
        """Asks until cancelled."""
        async with asyncio.TaskGroup() as group:
            for edge in self._edges:
                group.create_task(self._watch(edge), name=f"edge-{edge.name}")

    async def _watch(self, edge: Edge) -> None:
        while True:
            await self._once(edge)
            await asyncio.sleep(self._patience.every)

    async def _once(self, edge: Edge) -> None:
        sure = False
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._patience.deadline
        try:
            async with asyncio.timeout(self._patience.deadline):
                fault = await ask(edge)
        except TimeoutError:
            if loop.time() > ends + _LATE:
                return
            fault = f"it does not answer within {self._patience.deadline:g} s"
        except Gone as error:
            fault, sure = str(error), True
        self._judge(edge, fault, sure=sure)

    def _judge(self, edge: Edge, fault: str | None, *, sure: bool) -> None:
        """Counts answers that speak against what is believed."""
        believed = self._faults.get(edge.name)
        if (fault is None) == (believed is None):
            self._counts[edge.name] = 0
            if fault is not None:
                self._faults[edge.name] = fault
            return
        self._counts[edge.name] += 1
        if not sure and self._counts[edge.name] < (self._patience.rise if fault is None else self._patience.fall):
            return
        self._counts[edge.name] = 0
        if fault is None:
            self._faults.pop(edge.name, None)
        else:
            self._faults[edge.name] = fault
        metrics.EDGE_READY.labels(edge.name).set(int(fault is None))
        log.info("edge.judged", edge=edge.name, ready=fault is None, reason=fault or "")
        self.changed.set()

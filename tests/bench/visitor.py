"""A visitor: the client that every edge is asked with, and the one way in which a reaction is timed.

The visitor keeps one connection open and asks again about every millisecond, so a figure is at most that much too large, and the machine
has time for those who are measured. A lost connection is opened again; that is part of what is measured.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Self

PAUSE: Final = 0.001  # seconds between an answer and the next question
ANSWER_WITHIN: Final = 5.0
REACTION_WITHIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an edge said. Status 0: the connection was lost."""

    status: int
    body: str


LOST: Final = Answer(0, "")


@dataclass(frozen=True, slots=True)
class Reaction:
    """How long the first new answer took, in seconds: since just before the change was sent, and since the API server had answered it."""

    since_sent: float
    since_answered: float


class Visitor:
    """One connection to an edge on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hang_up()

    async def ask(self, host: str) -> Answer:
        """The answer to `GET /` of that host."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await self._ask(host)
        except (OSError, EOFError, TimeoutError):
            self._hang_up()
            return LOST

    async def until(self, host: str, new: Callable[[Answer], bool]) -> float:
        """Asks until an answer is `new`; the moment at which it was there, in the loop's time."""
        async with asyncio.timeout(REACTION_WITHIN):
            while not new(await self.ask(host)):  # noqa: ASYNC110 nobody tells when an edge has changed; that is what is measured
                await asyncio.sleep(PAUSE)
            return _now()

    async def reaction(self, host: str, new: Callable[[Answer], bool], change: Callable[[], Awaitable[object]]) -> Reaction:
        """Makes the change while asking. An answer that is new beforehand is an error, since it would be taken for the reaction."""
        before = await self.ask(host)
        if new(before):
            raise RuntimeError(f"{host} gave the new answer before the change was made: {before}")
        async with asyncio.TaskGroup() as group:
            sent = _now()
            seen = group.create_task(self.until(host, new))
            await change()
            answered = _now()
        return Reaction(seen.result() - sent, seen.result() - answered)

    async def _ask(self, host: str) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self._hang_up()
        return Answer(int(head.split(" ", 2)[1]), body.decode().strip())

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _now() -> float:
    return asyncio.get_running_loop().time()

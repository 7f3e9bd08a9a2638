"""Reading from a JetStream consumer by pull requests, with an account of what is outstanding.

A `Pull` keeps a window of messages asked for (ADR-37): a reader has two requests open, so that one is served while the other is renewed;
a queue asks for one job at a time, when somebody wants it. What is asked for and not yet handed over never exceeds the window, nor
`max_bytes` a request, so memory is bounded.

A pull is lost when the connection goes, the server ends a request for any reason but time or size, or two heartbeats are missed. What had
arrived until then is still handed over; then `take` raises. A consumer that was just made is asked again for a moment, where the server has
not heard of it yet: the servers of a cluster tell each other.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from nats.aio.msg import Msg

from common.bus import wire
from common.bus.link import Link
from common.bus.protocol import BusError, Message, Unavailable

EXPIRES: Final = 30.0
_FULFILLED: Final = frozenset({"Message Size Exceeds MaxBytes", "Batch Completed"})
_BATCH: Final = 1000
_WINDOW: Final = 2 * _BATCH
_LEAST_BYTES: Final = 16 * 1024 * 1024
_TOLD: Final = 3.0  # seconds in which every server of a busy cluster has heard of a consumer
_PAUSE: Final = 0.02  # seconds before one is asked again that is not known yet


class Pull:
    """The open requests to one consumer. `take` refills the window, so nothing is asked for while nobody wants it."""

    def __init__(self, link: Link, stream: str, consumer: str, *, batch: int, window: int) -> None:
        self.last_position = 0
        self._link = link
        self._next = f"{wire.API}.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = link.inbox()
        self._batch = batch
        self._window = window
        self._heartbeat = link.settings.heartbeat
        self._arrived: deque[Msg] = deque()
        self._outstanding = 0
        self._heard = 0.0
        self._began = 0.0
        self._answered = False  # by the consumer itself
        self._unknown = False  # whether a server does not know the consumer yet
        self._news = asyncio.Event()
        self._failure: BusError | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Pull"]:
        """Listens for messages while the block runs."""
        async with self._link.subscribed(self._inbox, self._on_message):
            self._link.listen(self._lose)
            try:
                yield self
            finally:
                self._link.unlisten(self._lose)

    async def take(self) -> list[Msg]:
        """Everything that is there, waiting for a first message; nothing if the server only gave a sign of life."""
        await self._refill()
        while not self._news.is_set():
            try:
                async with asyncio.timeout(2.5 * self._heartbeat):
                    await self._news.wait()
            except TimeoutError:
                self._check_silence()
        if not self._arrived and self._failure is not None:
            raise self._failure
        if self._failure is None:
            self._news.clear()
        messages = list(self._arrived)
        self._arrived.clear()
        return messages

    async def _refill(self) -> None:
        if self._unknown:
            await asyncio.sleep(_PAUSE)
            self._unknown = False
        while self._failure is None and self._outstanding + len(self._arrived) + self._batch <= self._window:
            request = wire.pull_json(self._batch, expires=EXPIRES, heartbeat=self._heartbeat, max_bytes=self._max_bytes())
            self._outstanding += self._batch
            self._heard = asyncio.get_running_loop().time()
            self._began = self._began or self._heard
            await self._link.send(self._next, json.dumps(request).encode(), self._inbox)

    def _max_bytes(self) -> int:
        """A request must have room for the largest message, or it would never be served."""
        return max(_LEAST_BYTES, 2 * self._link.max_payload)

    async def _on_message(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if message.subject != self._inbox:
            self._answered = True
            self._outstanding = max(0, self._outstanding - 1)
            self._arrived.append(message)
        else:
            self._on_status(message.headers or {})
        self._news.set()

    def _on_status(self, headers: dict[str, str]) -> None:
        status, reason = headers.get("Status", ""), headers.get("Description", "")
        if status == wire.NOBODY:
            return self._on_nobody()
        self._answered = True
        if status == "100":
            self.last_position = int(headers.get("Nats-Last-Consumer", "0"))
        elif status == "408" or (status == "409" and reason.strip() in _FULFILLED):
            self._outstanding = max(0, self._outstanding - int(headers.get("Nats-Pending-Messages", "0")))
        else:
            self._lose(Unavailable(f"the server ended the request: {status} {reason.strip()}"))
        return None

    def _on_nobody(self) -> None:
        self._outstanding = max(0, self._outstanding - self._batch)
        self._unknown = True
        if self._answered or self._heard - self._began > _TOLD:
            self._lose(
                Unavailable(f"nobody answers at {self._next}: its server is gone, or another one is about to take its place")
            )

    def _check_silence(self) -> None:
        if asyncio.get_running_loop().time() - self._heard >= 2 * self._heartbeat:
            self._lose(Unavailable(f"nothing was heard for two heartbeats of {self._heartbeat:g} s"))

    def _lose(self, why: BusError) -> None:
        if self._failure is None:
            self._failure = why
        self._news.set()


class NatsReader:
    """The messages of an ephemeral consumer, with proof that none is missing."""

    def __init__(self, pull: Pull) -> None:
        self._pull = pull
        self._position = 0
        self._behind = 0

    @property
    def behind(self) -> int:
        """See `Reader`."""
        return self._behind

    async def batch(self) -> Sequence[Message]:
        """See `Reader`."""
        messages = [self._checked(message) for message in await self._pull.take()]
        if not messages and self._pull.last_position > self._position:
            raise Unavailable(f"message {self._position + 1} of the reader was lost: the server sent {self._pull.last_position}")
        return messages

    def _checked(self, message: Msg) -> Message:
        delivered = wire.Delivered(message.reply)
        if delivered.position != self._position + 1:
            raise Unavailable(f"message {self._position + 1} of the reader was lost: the next one is {delivered.position}")
        self._position = delivered.position
        self._behind = delivered.pending
        return Message(message.subject, message.headers or {}, message.data, delivered.sequence, delivered.time)


def reader_pull(link: Link, stream: str, consumer: str) -> Pull:
    """A pull with two large requests open."""
    return Pull(link, stream, consumer, batch=_BATCH, window=_WINDOW)


def job_pull(link: Link, stream: str, consumer: str) -> Pull:
    """A pull for one job at a time."""
    return Pull(link, stream, consumer, batch=1, window=1)


class NatsJob:
    """One delivery of a job."""

    def __init__(self, link: Link, message: Msg) -> None:
        delivered = wire.Delivered(message.reply)
        self.message = Message(message.subject, message.headers or {}, message.data, delivered.sequence, delivered.time)
        self.attempt = delivered.attempt
        self._link = link
        self._reply = message.reply

    async def working(self) -> None:
        """See `Job`."""
        await self._link.send(self._reply, b"+WPI")

    async def done(self) -> None:
        """See `Job`."""
        await self._link.request(self._reply, b"+ACK")

    async def retry(self, delay: float) -> None:
        """See `Job`."""
        await self._link.request(self._reply, b"-NAK " + json.dumps({"delay": int(delay * 1e9)}).encode())

    async def drop(self) -> None:
        """See `Job`."""
        await self._link.request(self._reply, b"+TERM")

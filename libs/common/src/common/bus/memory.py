"""A bus in this process's memory, for unit tests: the same promises as JetStream, and the same suite proves them.

    broker = MemoryBroker()
    bus = broker.connect()

One broker stands for a server and may have many connections. A test can make it fail: `interrupt` drops every reader, `away` makes every
request fail, `forbid` takes a permission away, `lose` removes a stream. Nothing is kept beyond the broker.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from itertools import takewhile
from typing import Final

from common.bus.memory_stream import MemoryQueue, MemoryStream, changed, matches
from common.bus.protocol import (
    ADVISORIES,
    Answerer,
    Denied,
    Job,
    Message,
    QueueConfig,
    Reader,
    Start,
    Stored,
    StreamConfig,
    StreamMissing,
    StreamState,
    TooLarge,
    Unavailable,
)

_BATCH: Final = 500


class MemoryBroker:
    """What stands in for a server."""

    def __init__(self, *, clock: Callable[[], float] = time.time, max_payload: int = 4 * 1024 * 1024, heartbeat: float = 5) -> None:
        self.max_payload = max_payload
        self.heartbeat = heartbeat
        self.away = False
        self.streams: dict[str, MemoryStream] = {}
        self.answerers: list[tuple[str, Answerer]] = []
        self._clock = clock
        self._forbidden: set[str] = set()
        self._incarnations = 0
        self._generation = 0

    def connect(self) -> "MemoryBus":
        """A connection of its own."""
        return MemoryBus(self)

    def interrupt(self) -> None:
        """Drops every reader and every taker of jobs, as a lost connection would."""
        self._generation += 1
        for stream in self.streams.values():
            stream.news.set()

    def forbid(self, filter_: str) -> None:
        """Refuses publishing below `filter_` until `allow`."""
        self._forbidden.add(filter_)

    def allow(self, filter_: str) -> None:
        """Ends `forbid`."""
        self._forbidden.discard(filter_)

    def lose(self, stream: str) -> None:
        """Removes a stream with everything in it."""
        lost = self.streams.pop(stream)
        lost.gone = True
        lost.news.set()

    def ensure(self, config: StreamConfig) -> MemoryStream:
        """Creates the stream or changes its options."""
        if config.name not in self.streams:
            self._incarnations += 1
            self.streams[config.name] = MemoryStream(config, f"incarnation {self._incarnations}", self._clock)
        self.streams[config.name].config = config
        return self.streams[config.name]

    def stream(self, name: str) -> MemoryStream:
        """The stream without what has expired. Raises StreamMissing."""
        self.check()
        if name not in self.streams:
            raise StreamMissing(f"stream {name} not found")
        self.streams[name].expire()
        return self.streams[name]

    def check(self, generation: int | None = None) -> None:
        """Raises Unavailable while the broker is away, and to whoever began before the last interruption."""
        if self.away or generation not in {None, self._generation}:
            raise Unavailable("the connection to the bus is gone")

    @property
    def generation(self) -> int:
        """Counts interruptions."""
        return self._generation

    def publish(self, subject: str, body: bytes, headers: Mapping[str, str], expected_last: int | None) -> Stored:
        """See `Bus`."""
        self.check()
        if any(matches(filter_, subject) for filter_ in self._forbidden):
            raise Denied(f'permissions violation for publish to "{subject}"')
        if len(body) > self.max_payload:
            raise TooLarge(f"the message for {subject} has {len(body)} bytes, and the bus takes {self.max_payload}")
        for stream in self._listening(subject):
            stream.expire()
            return stream.store(subject, body, headers, expected_last)
        raise Unavailable(f"nobody answers on {subject}: there is no such stream")

    def queue(self, config: QueueConfig) -> MemoryQueue:
        """The durable consumer of that name, made or changed."""

        def give_up(sequence: int, deliveries: int) -> None:
            notice = {"stream": config.stream, "consumer": config.name, "stream_seq": sequence, "deliveries": deliveries}
            for listener in self._listening(f"{ADVISORIES}.{config.stream}.{config.name}"):
                listener.store(f"{ADVISORIES}.{config.stream}.{config.name}", json.dumps(notice).encode(), {}, None)

        stream = self.stream(config.stream)
        queue = stream.queues.setdefault(config.name, MemoryQueue(stream, config, give_up))
        queue.config = config
        return queue

    def _listening(self, subject: str) -> list[MemoryStream]:
        return [stream for stream in self.streams.values() if any(matches(each, subject) for each in stream.config.subjects)]


class MemoryBus:
    """See `Bus`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._closed = False

    @property
    def max_payload(self) -> int:
        """See `Bus`."""
        return self._broker.max_payload

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        """See `Bus`."""
        await self._turn()
        return self._broker.publish(subject, body, headers, expected_last)

    async def get_last(self, stream: str, subject: str) -> Message | None:
        """See `Bus`."""
        await self._turn()
        return self._broker.stream(stream).last(subject)

    async def recall(self, stream: str, subject: str) -> Message | None:
        """See `Bus`."""
        return await self.get_last(stream, subject)

    async def get(self, stream: str, sequence: int) -> Message | None:
        """See `Bus`."""
        await self._turn()
        return self._broker.stream(stream).messages.get(sequence)

    async def delete(self, stream: str, sequence: int) -> None:
        """See `Bus`."""
        await self._turn()
        self._broker.stream(stream).remove(sequence)

    async def ensure_stream(self, config: StreamConfig) -> StreamState:
        """See `Bus`."""
        await self._turn()
        self._broker.check()
        return self._broker.ensure(config).state()

    async def stream_state(self, stream: str) -> StreamState:
        """See `Bus`."""
        await self._turn()
        return self._broker.stream(stream).state()

    async def subjects(self, stream: str, filter_: str) -> dict[str, int]:
        """See `Bus`."""
        await self._turn()
        return self._broker.stream(stream).subjects(filter_)

    @asynccontextmanager
    async def read(
        self, stream: str, filters: Sequence[str], start: Start, *, name: str, headers_only: bool = False
    ) -> AsyncIterator[Reader]:
        """See `Bus`."""
        del name
        await self._turn()
        yield MemoryReader(self._broker, self._broker.stream(stream), tuple(filters), start, headers_only=headers_only)

    @asynccontextmanager
    async def work(self, config: QueueConfig) -> AsyncIterator[AsyncIterator[Job]]:
        """See `Bus`."""
        await self._turn()
        queue = self._broker.queue(config)
        generation = self._broker.generation
        async with aclosing(queue.jobs(lambda: self._broker.check(generation))) as jobs:
            yield jobs

    async def ask(self, subject: str, body: bytes, *, within: float, grace: float) -> Sequence[bytes]:
        """See `Bus`."""
        await self._turn()
        self._broker.check()
        asked = [answerer for heard, answerer in self._broker.answerers if heard == subject]
        if not asked:
            raise Unavailable(f"nobody answers on {subject}")
        said: list[bytes] = []

        async def put(answerer: Answerer) -> None:
            said.append(await answerer(body))

        answers = [asyncio.ensure_future(put(answerer)) for answerer in asked]
        done, late = await asyncio.wait(answers, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        late = (await asyncio.wait(late, timeout=grace))[1] if done and late else late
        for answer in late:
            answer.cancel()
        if not said:
            raise Unavailable(f"nobody answered on {subject} within {within:g} s")
        return said

    @asynccontextmanager
    async def answering(self, subject: str, answerer: Answerer) -> AsyncIterator[None]:
        """See `Bus`."""
        await self._turn()
        self._broker.check()
        self._broker.answerers.append((subject, answerer))
        try:
            yield
        finally:
            self._broker.answerers.remove((subject, answerer))

    async def close(self) -> None:
        """See `Bus`."""
        self._closed = True

    async def _turn(self) -> None:
        """Lets others run, as a round trip to a server would."""
        await asyncio.sleep(0)
        if self._closed:
            raise Unavailable("the connection to the bus is closed")


class MemoryReader:
    """See `Reader`. What is to be replayed is settled when it is opened; what was replaced meanwhile is left out."""

    def __init__(
        self, broker: MemoryBroker, stream: MemoryStream, filters: tuple[str, ...], start: Start, *, headers_only: bool
    ) -> None:
        self._broker = broker
        self._generation = broker.generation
        self._stream = stream
        self._filters = filters
        self._headers_only = headers_only
        self._next = stream.last_sequence + 1
        wanted = [message for message in stream.messages.values() if self._wants(message)]
        if start.sequence is None:
            self._replay = deque(sorted({message.subject: message.sequence for message in wanted}.values()))
        else:
            self._replay = deque(message.sequence for message in wanted if message.sequence >= start.sequence)
            self._next = max(self._next, start.sequence)

    @property
    def behind(self) -> int:
        """See `Reader`."""
        return len(self._replay) + len(self._new())

    async def batch(self) -> Sequence[Message]:
        """See `Reader`."""
        deadline = asyncio.get_running_loop().time() + self._broker.heartbeat
        while True:
            await asyncio.sleep(0)
            self._broker.check(self._generation)
            if self._stream.gone:
                raise Unavailable("the consumer was deleted")
            self._stream.expire()
            messages = self._take()
            if messages or asyncio.get_running_loop().time() >= deadline:
                return messages
            await changed(self._stream, deadline)

    def _take(self) -> list[Message]:
        messages: list[Message] = []
        while self._replay and len(messages) < _BATCH:
            message = self._stream.messages.get(self._replay.popleft())
            if message is not None:
                messages.append(message)
        if not self._replay and len(messages) < _BATCH:
            messages += self._new()
            self._next = self._stream.last_sequence + 1
        if self._headers_only:
            return [replace(m, body=b"", headers={**m.headers, "Nats-Msg-Size": str(len(m.body))}) for m in messages]
        return messages

    def _new(self) -> list[Message]:
        newest_first = takewhile(lambda message: message.sequence >= self._next, reversed(self._stream.messages.values()))
        return [message for message in newest_first if self._wants(message)][::-1]

    def _wants(self, message: Message) -> bool:
        return any(matches(filter_, message.subject) for filter_ in self._filters)

"""A bus in this process's memory, for unit tests: the same promises as JetStream, and the same suite proves them.

    broker = MemoryBroker()
    bus = broker.connect()

One broker stands for a server and may have many connections. A test can make it fail: `interrupt` drops every reader, `away` makes every
request fail, `forbid` takes a permission away, `lose` removes a stream. Nothing is kept beyond the broker.
"""

import asyncio
import json
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

from common.bus.protocol import (
    ADVISORIES,
    HEADER_MESSAGE_ID,
    HEADER_TTL,
    Conflict,
    Denied,
    Full,
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

_OVERHEAD: Final = 22  # bytes of a message in a JetStream file, beside its content
_BATCH: Final = 500


def matches(filter_: str, subject: str) -> bool:
    """Whether `subject` is below `filter_`: `*` is one token, `>` at the end one or more."""
    wanted, tokens = filter_.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(want in {"*", token} for want, token in zip(wanted, tokens, strict=True))


class MemoryBroker:
    """What stands in for a server."""

    def __init__(self, *, clock: Callable[[], float] = time.time, max_payload: int = 4 * 1024 * 1024, heartbeat: float = 5) -> None:
        self.max_payload = max_payload
        self.heartbeat = heartbeat
        self.away = False
        self.streams: dict[str, _Stream] = {}
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

    def ensure(self, config: StreamConfig) -> "_Stream":
        """Creates the stream or changes its options."""
        if config.name not in self.streams:
            self._incarnations += 1
            self.streams[config.name] = _Stream(config, f"incarnation {self._incarnations}", self._clock)
        self.streams[config.name].config = config
        return self.streams[config.name]

    def stream(self, name: str) -> "_Stream":
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
        for stream in self.streams.values():
            if any(matches(filter_, subject) for filter_ in stream.config.subjects):
                stream.expire()
                return stream.store(subject, body, headers, expected_last)
        raise Unavailable(f"nobody answers on {subject}: there is no such stream")

    def advise(self, queue: "_Queue", sequence: int, deliveries: int) -> None:
        """Says that a job was delivered too often, to whatever stream listens."""
        subject = f"{ADVISORIES}.{queue.config.stream}.{queue.config.name}"
        notice = {"stream": queue.config.stream, "consumer": queue.config.name, "stream_seq": sequence, "deliveries": deliveries}
        for stream in self.streams.values():
            if any(matches(filter_, subject) for filter_ in stream.config.subjects):
                stream.store(subject, json.dumps(notice).encode(), {}, None)


@dataclass(slots=True)
class _Stream:
    config: StreamConfig
    created: str
    clock: Callable[[], float]
    last_sequence: int = 0
    size: int = 0
    gone: bool = False
    messages: "OrderedDict[int, Message]" = field(default_factory=OrderedDict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    queues: dict[str, "_Queue"] = field(default_factory=dict)
    _by_subject: dict[str, list[int]] = field(default_factory=dict)
    _ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    _deadlines: dict[int, float] = field(default_factory=dict)

    def store(self, subject: str, body: bytes, headers: Mapping[str, str], expected_last: int | None) -> Stored:
        last = self.last(subject)
        if expected_last is not None and expected_last != (last.sequence if last else 0):
            raise Conflict(f"wrong last sequence: {last.sequence if last else 0}")
        now = self.clock()
        id_ = headers.get(HEADER_MESSAGE_ID, "")
        if id_ in self._ids and now - self._ids[id_][1] < self.config.duplicate_window:
            return Stored(self._ids[id_][0], duplicate=True)
        message = Message(subject, dict(headers), body, self.last_sequence + 1, now)
        self._make_room(message)
        self.last_sequence = message.sequence
        if id_:
            self._ids[id_] = (message.sequence, now)
        if self.config.message_ttl and HEADER_TTL in headers:
            self._deadlines[message.sequence] = now + int(headers[HEADER_TTL])
        elif self.config.max_age:
            self._deadlines[message.sequence] = now + self.config.max_age
        self.messages[message.sequence] = message
        self.size += _size(message)
        self._by_subject.setdefault(subject, []).append(message.sequence)
        self.news.set()
        return Stored(message.sequence)

    def last(self, subject: str) -> Message | None:
        sequences = self._by_subject.get(subject)
        return self.messages[sequences[-1]] if sequences else None

    def subjects(self, filter_: str) -> dict[str, int]:
        return {subject: len(sequences) for subject, sequences in self._by_subject.items() if matches(filter_, subject)}

    def remove(self, sequence: int) -> None:
        message = self.messages.pop(sequence, None)
        if message is None:
            return
        self.size -= _size(message)
        self._deadlines.pop(sequence, None)
        sequences = self._by_subject[message.subject]
        sequences.remove(sequence)
        if not sequences:
            del self._by_subject[message.subject]
        for queue in self.queues.values():
            queue.forget(sequence)

    def expire(self) -> None:
        now = self.clock()
        for sequence in [sequence for sequence, deadline in self._deadlines.items() if deadline <= now]:
            self.remove(sequence)

    def state(self) -> StreamState:
        return StreamState(self.config.name, self.created, self.last_sequence, len(self.messages), self.size, self.config)

    def _make_room(self, message: Message) -> None:
        replaced = self._by_subject.get(message.subject, [])
        full = self.config.per_subject and len(replaced) >= self.config.per_subject
        freed = _size(self.messages[replaced[0]]) if full else 0
        if self.config.max_bytes and self.size - freed + _size(message) > self.config.max_bytes:
            if self.config.discard == "new":
                raise Full("maximum bytes exceeded")
            while self.messages and self.size + _size(message) > self.config.max_bytes:
                self.remove(next(iter(self.messages)))
        elif full:
            self.remove(replaced[0])


def _size(message: Message) -> int:
    return _OVERHEAD + len(message.subject) + len(message.body) + sum(len(k) + len(v) + 4 for k, v in message.headers.items())


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
        stream = self._broker.stream(config.stream)
        queue = stream.queues.setdefault(config.name, _Queue(self._broker, stream, config))
        queue.config = config
        async with aclosing(queue.jobs()) as jobs:
            yield jobs

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
        self, broker: MemoryBroker, stream: _Stream, filters: tuple[str, ...], start: Start, *, headers_only: bool
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
            await _changed(self._stream, deadline)

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


class _Queue:
    """A durable consumer of a work queue."""

    def __init__(self, broker: MemoryBroker, stream: _Stream, config: QueueConfig) -> None:
        self.config = config
        self._broker = broker
        self._stream = stream
        self._attempts: dict[int, int] = {}
        self._due: dict[int, float] = {}  # when a job may be given out again
        self._out: set[int] = set()  # given out and not answered
        self._given_up: set[int] = set()

    async def jobs(self) -> AsyncGenerator[Job, None]:
        generation = self._broker.generation
        while True:
            await asyncio.sleep(0)
            self._broker.check(generation)
            if self._stream.gone:
                raise Unavailable("the consumer was deleted")
            self._stream.expire()
            job = self._next()
            if job is not None:
                yield job
            else:
                await _changed(self._stream, asyncio.get_running_loop().time() + self._patience())

    def answer(self, sequence: int) -> None:
        """The job is over."""
        self._stream.remove(sequence)
        self._stream.news.set()

    def postpone(self, sequence: int, delay: float, *, out: bool) -> None:
        """The job is due again after `delay` unless it is answered before; `out`: somebody still works on it."""
        if sequence in self._stream.messages:
            self._due[sequence] = self._stream.clock() + delay
            if not out:
                self._out.discard(sequence)
            self._stream.news.set()

    def forget(self, sequence: int) -> None:
        """The message left the stream."""
        self._attempts.pop(sequence, None)
        self._due.pop(sequence, None)
        self._out.discard(sequence)
        self._given_up.discard(sequence)

    def _next(self) -> "MemoryJob | None":
        now = self._stream.clock()
        self._out -= {sequence for sequence in self._out if self._due[sequence] <= now}
        if len(self._out) >= self.config.max_pending:
            return None
        for message in list(self._stream.messages.values()):
            sequence = message.sequence
            if sequence in self._given_up or self._due.get(sequence, 0) > now or not matches(self.config.filter, message.subject):
                continue
            attempts = self._attempts.get(sequence, 0)
            if 0 < self.config.max_deliver <= attempts:
                self._given_up.add(sequence)
                self._broker.advise(self, sequence, attempts)
                continue
            self._attempts[sequence] = attempts + 1
            self._due[sequence] = now + self.config.ack_wait
            self._out.add(sequence)
            return MemoryJob(self, message, attempts + 1)
        return None

    def _patience(self) -> float:
        now = self._stream.clock()
        return max(0.01, min((due - now for sequence, due in self._due.items() if sequence not in self._given_up), default=1.0))


class MemoryJob:
    """See `Job`."""

    def __init__(self, queue: _Queue, message: Message, attempt: int) -> None:
        self.message = message
        self.attempt = attempt
        self._queue = queue

    async def working(self) -> None:
        """See `Job`."""
        self._queue.postpone(self.message.sequence, self._queue.config.ack_wait, out=True)

    async def done(self) -> None:
        """See `Job`."""
        self._queue.answer(self.message.sequence)

    async def retry(self, delay: float) -> None:
        """See `Job`."""
        self._queue.postpone(self.message.sequence, delay, out=False)

    async def drop(self) -> None:
        """See `Job`."""
        self._queue.answer(self.message.sequence)


async def _changed(stream: _Stream, deadline: float) -> None:
    """Waits until the stream has news, or until `deadline` of the loop's clock. Several may wait."""
    try:
        async with asyncio.timeout_at(deadline):
            stream.news.clear()
            await stream.news.wait()
    except TimeoutError:
        return

"""Streams and queues in memory: what `common.bus.memory` keeps, with the rules by which JetStream keeps it."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.bus.protocol import (
    HEADER_MESSAGE_ID,
    HEADER_TTL,
    Conflict,
    Full,
    Job,
    Message,
    QueueConfig,
    Stored,
    StreamConfig,
    StreamState,
    Unavailable,
)

_OVERHEAD: Final = 22  # bytes of a message in a JetStream file, beside its content


def matches(filter_: str, subject: str) -> bool:
    """Whether `subject` is below `filter_`: `*` is one token, `>` at the end one or more."""
    wanted, tokens = filter_.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(want in {"*", token} for want, token in zip(wanted, tokens, strict=True))


@dataclass(slots=True)
class MemoryStream:
    """One stream. It expires nothing by itself: call `expire` before looking."""

    config: StreamConfig
    created: str
    clock: Callable[[], float]
    last_sequence: int = 0
    size: int = 0
    gone: bool = False
    messages: OrderedDict[int, Message] = field(default_factory=OrderedDict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    queues: dict[str, "MemoryQueue"] = field(default_factory=dict)
    _by_subject: dict[str, list[int]] = field(default_factory=dict)
    _ids: dict[str, tuple[int, float]] = field(default_factory=dict)
    _deadlines: dict[int, float] = field(default_factory=dict)

    def store(self, subject: str, body: bytes, headers: Mapping[str, str], expected_last: int | None) -> Stored:
        """Stores a message, or finds it stored already. A single server compares sequences before it looks for duplicates."""
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
        """The last message of a subject."""
        sequences = self._by_subject.get(subject)
        return self.messages[sequences[-1]] if sequences else None

    def subjects(self, filter_: str) -> dict[str, int]:
        """The subjects below a filter, each with its number of messages."""
        return {subject: len(sequences) for subject, sequences in self._by_subject.items() if matches(filter_, subject)}

    def remove(self, sequence: int) -> None:
        """Takes a message out; its subject may have others."""
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
        """Takes out what has outlived its time."""
        now = self.clock()
        for sequence in [sequence for sequence, deadline in self._deadlines.items() if deadline <= now]:
            self.remove(sequence)

    def state(self) -> StreamState:
        """The stream as it is."""
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


class MemoryQueue:
    """A durable consumer of a work queue."""

    def __init__(self, stream: MemoryStream, config: QueueConfig, give_up: Callable[[int, int], None]) -> None:
        self.config = config
        self._stream = stream
        self._tell = give_up
        self._attempts: dict[int, int] = {}
        self._due: dict[int, float] = {}  # when a job may be given out again
        self._given_up: set[int] = set()

    async def jobs(self, check: Callable[[], None]) -> AsyncGenerator[Job, None]:
        """One job after the other; `check` raises when the taker's connection is gone."""
        while True:
            await asyncio.sleep(0)
            check()
            if self._stream.gone:
                raise Unavailable("the consumer was deleted")
            self._stream.expire()
            job = self._next()
            if job is not None:
                yield job
            else:
                await changed(self._stream, asyncio.get_running_loop().time() + self._patience())

    def answer(self, sequence: int) -> None:
        """The job is over."""
        self._stream.remove(sequence)
        self._stream.news.set()

    def postpone(self, sequence: int, delay: float) -> None:
        """The job is due again after `delay` unless it is answered before."""
        if sequence in self._stream.messages:
            self._due[sequence] = self._stream.clock() + delay
            self._stream.news.set()

    def forget(self, sequence: int) -> None:
        """The message left the stream."""
        self._attempts.pop(sequence, None)
        self._due.pop(sequence, None)
        self._given_up.discard(sequence)

    def _next(self) -> "MemoryJob | None":
        now = self._stream.clock()
        for message in list(self._stream.messages.values()):
            sequence = message.sequence
            if sequence in self._given_up or self._due.get(sequence, 0) > now or not matches(self.config.filter, message.subject):
                continue
            attempts = self._attempts.get(sequence, 0)
            if 0 < self.config.max_deliver <= attempts:
                self._given_up.add(sequence)
                self._tell(sequence, attempts)
                continue
            self._attempts[sequence] = attempts + 1
            self._due[sequence] = now + self.config.ack_wait
            return MemoryJob(self, message, attempts + 1)
        return None

    def _patience(self) -> float:
        now = self._stream.clock()
        return max(0.01, min((due - now for sequence, due in self._due.items() if sequence not in self._given_up), default=1.0))


class MemoryJob:
    """See `Job`."""

    def __init__(self, queue: MemoryQueue, message: Message, attempt: int) -> None:
        self.message = message
        self.attempt = attempt
        self._queue = queue

    async def working(self) -> None:
        """See `Job`."""
        self._queue.postpone(self.message.sequence, self._queue.config.ack_wait)

    async def done(self) -> None:
        """See `Job`."""
        self._queue.answer(self.message.sequence)

    async def retry(self, delay: float) -> None:
        """See `Job`."""
        self._queue.postpone(self.message.sequence, delay)

    async def drop(self) -> None:
        """See `Job`."""
        self._queue.answer(self.message.sequence)


async def changed(stream: MemoryStream, deadline: float) -> None:
    """Waits until the stream has news, or until `deadline` of the loop's clock. Several may wait."""
    try:
        async with asyncio.timeout_at(deadline):
            stream.news.clear()
            await stream.news.wait()
    except TimeoutError:
        return

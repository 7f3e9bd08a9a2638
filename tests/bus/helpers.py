"""A stream to play with, messages for it, and buses that misbehave in one chosen way."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from common.bus.protocol import (
    HEADER_KV_OPERATION,
    HEADER_TTL,
    Bus,
    BusError,
    Conflict,
    Message,
    Reader,
    Start,
    Stored,
    StreamConfig,
    StreamState,
    Unavailable,
)
from common.testing import wait_until

LOG = StreamConfig("LOG", ("state.v1.t.>", "sync.v1.t.>"), per_subject=1, message_ttl=True, max_bytes=64 * 1024 * 1024)
EVERYTHING = ("state.v1.t.>", "sync.v1.t.>")
OBJECTS = ("state.v1.t.>",)
T = TypeVar("T")


def log_for(replicas: int, **changes: Any) -> StreamConfig:
    return replace(LOG, replicas=replicas, **changes)


def subject(name: object) -> str:
    return f"state.v1.t.core.pods.ns.{name}"


def headers(uid: object, version: int, content: str = "") -> dict[str, str]:
    return {
        "ce-id": f"{uid}.{version}",
        "ce-k8suid": str(uid),
        "ce-k8srv": str(version),
        "ce-hash": content or f"{uid}-{version}",
    }


def gone(uid: object, version: int) -> dict[str, str]:
    return {"ce-id": f"{uid}.{version}.gone", "ce-k8suid": str(uid), "ce-k8srv": str(version)}


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """What the bus answers, asked again while it does not: a busy server is offline to the others for a moment, as services know."""
    answers: list[T] = []

    async def given() -> bool:
        try:
            answers.append(await ask())
        except BusError:
            return False
        return True

    await wait_until(given, within=30)
    return answers[0]


async def made(bus: Bus, config: StreamConfig) -> StreamState:
    """A stream that takes messages. In a cluster it takes a moment until every server knows of one that was just made."""
    state = await answered(lambda: bus.ensure_stream(config))

    async def takes() -> bool:
        try:
            await bus.publish(subject("nobody"), b"", {}, expected_last=10**9)
        except Conflict:
            return True
        except BusError:
            return False
        return False

    await wait_until(takes)
    return state


async def put(bus: Bus, name: object, body: str) -> int:
    return (await bus.publish(subject(name), body.encode(), {})).sequence


async def bury(bus: Bus, name: object, ttl: int = 3600) -> int:
    return (await bus.publish(subject(name), b"", {HEADER_KV_OPERATION: "PURGE", HEADER_TTL: str(ttl)})).sequence


def contents(messages: Sequence[Message]) -> dict[str, str]:
    """Name and body of each object."""
    return {message.subject.rpartition(".")[2]: message.body.decode() for message in messages}


class Delegate:
    """A bus that hands everything to another one."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


class LosesAnswers(Delegate):
    """Stores what is published, and then pretends for `losses` times that no answer came; `meanwhile` runs first."""

    def __init__(self, bus: Bus, losses: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        super().__init__(bus)
        self.losses = losses
        self.meanwhile = meanwhile

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        stored = await self._bus.publish(subject, body, headers, expected_last=expected_last)
        if self.losses:
            self.losses -= 1
            self.meanwhile()
            raise Unavailable("the answer was lost")
        return stored


class Interposed(Delegate):
    """Runs `meanwhile` once, after a reader was opened and the stream was listed, before anything is read."""

    def __init__(self, bus: Bus, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(bus)
        self._meanwhile: Callable[[], Awaitable[object]] | None = meanwhile

    @asynccontextmanager
    async def read(self, stream: str, filters: Sequence[str], start: Start, **options: Any) -> AsyncIterator[Reader]:
        async with self._bus.read(stream, filters, start, **options) as reader:
            yield _InterposedReader(reader, self)

    async def step_in(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()


class _InterposedReader(Delegate):
    def __init__(self, reader: Any, interposed: Interposed) -> None:
        super().__init__(reader)
        self._interposed = interposed

    async def batch(self) -> Sequence[Message]:
        await self._interposed.step_in()
        batch: Sequence[Message] = await self._bus.batch()  # type: ignore[attr-defined]  # a reader, here
        return batch


class MadeAnew(Delegate):
    """The first reader is opened, and what it would deliver is buffered; then `make_anew` runs, and only then is the stream listed."""

    def __init__(self, bus: Bus, make_anew: Callable[[], Awaitable[object]]) -> None:
        super().__init__(bus)
        self._make_anew: Callable[[], Awaitable[object]] | None = make_anew

    @asynccontextmanager
    async def read(self, stream: str, filters: Sequence[str], start: Start, **options: Any) -> AsyncIterator[Reader]:
        async with self._bus.read(stream, filters, start, **options) as reader:
            make_anew, self._make_anew = self._make_anew, None
            if make_anew is None:
                yield reader
                return
            buffered: Sequence[Message] = ()
            while not buffered:
                buffered = await reader.batch()
            await make_anew()
            yield _BufferedReader(reader, buffered)


class _BufferedReader(Delegate):
    def __init__(self, reader: Any, buffered: Sequence[Message]) -> None:
        super().__init__(reader)
        self._buffered = buffered

    async def batch(self) -> Sequence[Message]:
        buffered, self._buffered = self._buffered, ()
        later: Sequence[Message] = buffered or await self._bus.batch()  # type: ignore[attr-defined]  # a reader, here
        return later


class Gate(Delegate):
    """No reader can be opened while the gate is shut."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.shut = False

    @asynccontextmanager
    async def read(self, stream: str, filters: Sequence[str], start: Start, **options: Any) -> AsyncIterator[Reader]:
        if self.shut:
            raise Unavailable("the gate is shut")
        async with self._bus.read(stream, filters, start, **options) as reader:
            yield reader

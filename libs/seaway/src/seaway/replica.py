"""`seaway state`: what the bus knows of the cluster."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from common.bus.follower import Follower
from common.bus.nats import connect
from common.bus.protocol import Bus, Message
from common.bus.settings import BusSettings
from common.bus.streams import STATE
from common.codec import CodecError, decode
from common.contracts.refs import ObjectRef
from common.contracts.state import ObjectApplied, ObjectDeleted, StateError, read_state
from common.contracts.subjects import STATE as STATE_ROOT
from common.contracts.subjects import SubjectError, parse_state
from common.snapshot import Replaced

EVERYTHING: Final = (f"{STATE_ROOT}.>",)


@dataclass(frozen=True, slots=True)
class Seen:
    """A message about an object, and when the bus stored it, in seconds since 1970. `error` is why it cannot be read."""

    ref: ObjectRef
    message: ObjectApplied | ObjectDeleted | None
    stored: float
    error: str = ""


@asynccontextmanager
async def reach(settings: BusSettings) -> AsyncIterator[Bus]:
    """A connection to the bus while the block runs."""
    bus = await connect(settings)
    try:
        yield bus
    finally:
        await bus.close()


async def snapshot(bus: Bus) -> list[Seen]:
    """Everything that the replica holds, sorted by name."""
    async with Follower(bus, STATE.name, EVERYTHING, name="seaway-state") as follower:
        async for update in follower:
            if isinstance(update, Replaced):
                return sorted(read(update.messages), key=lambda seen: seen.ref)
    return []


async def follow(bus: Bus) -> AsyncIterator[Seen]:
    """Everything that the replica holds, then every change."""
    async with Follower(bus, STATE.name, EVERYTHING, name="seaway-state") as follower:
        async for update in follower:
            for seen in read(update.messages):
                yield seen


def read(messages: Sequence[Message]) -> Iterator[Seen]:
    """What `messages` say. One that cannot be read is shown too, with the reason."""
    for message in messages:
        try:
            ref = parse_state(message.subject).ref
        except SubjectError:
            continue
        try:
            yield Seen(ref, read_state(ref, decode(message.headers, message.body)), message.time)
        except (CodecError, StateError) as error:
            yield Seen(ref, None, message.time, str(error))


def now() -> float:
    """Seconds since 1970."""
    return time.time()

"""What a bus is: the few verbs that Seaway needs, with two implementations (`common.bus.nats`, `common.bus.memory`).

The verbs carry headers and bytes; what these mean is `common.codec`. The protocol is small on purpose: everything with a rule in it
(compare-and-set publishing, following, working a queue) is built once on top, and so is the same on both.

    BusError
    ├── Unavailable      the bus did not answer in time, or the connection is gone: try again later
    ├── Conflict         the subject's last sequence was not the expected one: somebody else wrote
    ├── Full             the stream refuses new messages (discard=new): an operator must act
    ├── Denied           the server forbids it: a permission is missing
    ├── TooLarge         the message is above the server's max_payload
    ├── StreamMissing    the stream is not there (any more)
    └── Unsupported      the server is too old; the text says what to install
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, runtime_checkable

HEADER_MESSAGE_ID: Final = "Nats-Msg-Id"
HEADER_EXPECTED_LAST: Final = "Nats-Expected-Last-Subject-Sequence"
HEADER_TTL: Final = "Nats-TTL"
HEADER_KV_OPERATION: Final = "KV-Operation"
HEADER_MARKER_REASON: Final = "Nats-Marker-Reason"
ADVISORIES: Final = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"


Answerer: TypeAlias = Callable[[bytes], Awaitable[bytes]]


class BusError(Exception):
    """Whatever goes wrong between us and the bus."""


class Unavailable(BusError):
    """The bus did not answer in time, or the connection is gone."""


class Conflict(BusError):
    """The subject's last sequence was not the expected one."""


class Full(BusError):
    """The stream takes no more messages."""


class Denied(BusError):
    """The server does not permit it."""


class TooLarge(BusError):
    """The message is above the server's `max_payload`."""


class StreamMissing(BusError):
    """The stream is not there."""


class Unsupported(BusError):
    """The server cannot do what Seaway needs."""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """A stream as we want it. Limits of 0 mean "none"; durations are seconds."""

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "workqueue"] = "limits"
    discard: Literal["new", "old"] = "new"
    per_subject: int = 0
    max_age: float = 0
    max_bytes: int = 0
    message_ttl: bool = False
    deny_delete: bool = False
    replicas: int = 1
    storage: Literal["file", "memory"] = "file"
    duplicate_window: float = 120
    description: str = ""


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it is. `created` names this incarnation: another value means that the stream was lost and made anew."""

    name: str
    created: str
    last_sequence: int
    messages: int
    bytes: int
    config: StreamConfig


@dataclass(frozen=True, slots=True)
class Message:
    """A message that stands in a stream. `time` is when the stream stored it, in seconds since 1970."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    time: float

    @property
    def gone(self) -> bool:
        """Whether this is a tombstone: its subject holds nothing any more. The server's own markers count too."""
        return self.headers.get(HEADER_KV_OPERATION) in {"DEL", "PURGE"} or HEADER_MARKER_REASON in self.headers


@dataclass(frozen=True, slots=True)
class Stored:
    """The stream's answer to a publish. `duplicate`: a message with this id was there already, at `sequence`."""

    sequence: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader begins: the last message of each subject (`sequence` None), or everything from a sequence on."""

    sequence: int | None = None


class Reader(Protocol):
    """Messages in the order of the stream, none left out, with a sign of life at least every few seconds."""

    @property
    def behind(self) -> int:
        """How many messages the stream knew to follow the newest one that was handed over."""
        ...

    async def batch(self) -> Sequence[Message]:
        """Waits for a message and hands over everything that is there; an empty batch is a sign of life.

        Raises Unavailable when the reader is lost: a gap, missed heartbeats, the consumer or the connection gone.
        """
        ...


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A durable consumer of a work queue. `ack_wait` in seconds; after `max_deliver` tries (-1: never) the job is a dead letter.

    `concurrency` is how many jobs one worker has under way. It is the worker that counts: the server would count jobs that wait for
    their next try too, and a few of them could hold up all others.
    """

    stream: str
    name: str
    filter: str
    ack_wait: float = 30
    max_deliver: int = 8
    concurrency: int = 1


class Job(Protocol):
    """One delivery of a job. Exactly one of `done`, `retry`, `drop` must be called."""

    @property
    def message(self) -> Message:
        """The job as it was published."""
        ...

    @property
    def attempt(self) -> int:
        """1 for the first delivery."""
        ...

    async def working(self) -> None:
        """Says that the work goes on, so that the server does not give the job to somebody else."""
        ...

    async def done(self) -> None:
        """Takes the job off the queue, for certain."""
        ...

    async def retry(self, delay: float) -> None:
        """Asks for the job again after `delay` seconds."""
        ...

    async def drop(self) -> None:
        """Takes the job off the queue without having done it. Publish it to the dead letters first."""
        ...


@runtime_checkable
class Bus(Protocol):
    """A connection to the bus. Every call has a deadline of its own and raises BusError."""

    @property
    def max_payload(self) -> int:
        """The largest body in bytes that the server takes."""
        ...

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        """Stores a message and waits for the stream's answer.

        `expected_last` is the sequence that the last message of this subject must have (0: there must be none), else Conflict.
        """
        ...

    async def get_last(self, stream: str, subject: str) -> Message | None:
        """The last message of `subject`, read from the stream's leader, so that one's own writes are seen."""
        ...

    async def recall(self, stream: str, subject: str) -> Message | None:
        """The last message of `subject`, from whichever server has it, which may not have seen a write of just now. It needs a permission
        for this subject and for no other.
        """
        ...

    async def get(self, stream: str, sequence: int) -> Message | None:
        """The message at `sequence`, read from the stream's leader, or None if it is not there any more."""
        ...

    async def delete(self, stream: str, sequence: int) -> None:
        """Takes one message out of the stream; one that is not there is no error."""
        ...

    async def ensure_stream(self, config: StreamConfig) -> StreamState:
        """Creates the stream or brings it to `config`; raises Unsupported if the server did not take an option."""
        ...

    async def stream_state(self, stream: str) -> StreamState:
        """The stream as it is. Raises StreamMissing."""
        ...

    async def subjects(self, stream: str, filter_: str) -> dict[str, int]:
        """The subjects below `filter_` that have a message, each with its number of messages."""
        ...

    def read(
        self, stream: str, filters: Sequence[str], start: Start, *, name: str, headers_only: bool = False
    ) -> AbstractAsyncContextManager[Reader]:
        """An ordered reader that keeps no state on the server once it is closed."""
        ...

    def work(self, config: QueueConfig) -> AbstractAsyncContextManager[AsyncIterator[Job]]:
        """The jobs of a queue, one by one: each is asked for when it is wanted, and not before."""
        ...

    async def ask(self, subject: str, body: bytes, *, within: float, grace: float) -> Sequence[bytes]:
        """What everybody says who answers on `subject`: all that comes within `grace` seconds of the first answer. A question is kept by
        no stream. Raises Unavailable if there is nobody, or none answers `within` so many seconds.
        """
        ...

    def answering(self, subject: str, answerer: Answerer) -> AbstractAsyncContextManager[None]:
        """Answers what is asked on `subject` while the block runs, one question after the other; where too many wait, further ones are
        not answered.
        """
        ...

    async def close(self) -> None:
        """Drains and closes the connection."""
        ...

"""The bus on NATS JetStream, by its raw API.

    async with asyncio.TaskGroup() as group:
        bus = await connect(settings)
        group.create_task(bus.watch())      # ends the application when the connection cannot be saved

nats-py carries the bytes (`common.bus.link`); consumers, publishing and the key-value conventions are ours, because each of them has to
notice a loss that nats-py's own do not. Needs nats-server 2.12 or newer: older ones take the TTL of a tombstone and ignore it.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from nats.aio.msg import Msg

from common.bus import wire
from common.bus.link import Link
from common.bus.protocol import (
    HEADER_EXPECTED_LAST,
    Answerer,
    BusError,
    Job,
    Message,
    QueueConfig,
    Reader,
    Start,
    Stored,
    StreamConfig,
    StreamMissing,
    StreamState,
    Unavailable,
    Unsupported,
)
from common.bus.pull import NatsJob, NatsReader, Pull, job_pull, reader_pull
from common.bus.settings import BusSettings

API_LEVEL: Final = 1
_INACTIVE: Final = 45.0  # seconds after which the server removes a reader that nobody asks
_ROOM_FOR_HEADERS: Final = 16 * 1024
_QUESTIONS: Final = 64  # that wait for an answerer

log = structlog.get_logger(__name__)


async def connect(settings: BusSettings) -> "NatsBus":
    """A bus whose server is good enough. Raises Unsupported, Denied, or Unavailable where `patience` is bounded."""
    link = Link(settings)
    await link.open()
    bus = NatsBus(link)
    try:
        await bus.check_server()
    except BaseException:
        await bus.close()
        raise
    return bus


class NatsBus:
    """See `Bus`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._link.connected

    @property
    def max_payload(self) -> int:
        """See `Bus`."""
        return self._link.max_payload - _ROOM_FOR_HEADERS

    async def watch(self) -> None:
        """The watchdog, for the application's TaskGroup. Raises Unavailable when the connection cannot be saved."""
        await self._link.watch()

    async def check_server(self) -> None:
        """Raises Unsupported if the server is too old or has no JetStream."""
        try:
            info = await self._api("INFO")
        except (Unavailable, wire.ApiError) as error:
            raise Unavailable(
                f"the NATS server {self._link.server} at {self._link.settings.url} has no JetStream ({error}); "
                "start it with `jetstream {}` in its configuration, or wait until its cluster has a leader"
            ) from error
        level = info.get("api", {}).get("level", 0)
        if level < API_LEVEL:
            raise Unsupported(
                f"the NATS server at {self._link.settings.url} is version {self._link.server} (JetStream API level {level}), "
                "which ignores the lifetime of tombstones; install nats-server >= 2.12"
            )

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        """See `Bus`."""
        if expected_last is not None:
            headers = {**headers, HEADER_EXPECTED_LAST: str(expected_last)}
        answer = _answer(await self._link.request(subject, body, headers), f"publishing to {subject}")
        return Stored(answer["seq"], answer.get("duplicate", False))

    async def get_last(self, stream: str, subject: str) -> Message | None:
        """See `Bus`."""
        return await self._stored(stream, {"last_by_subj": subject})

    async def recall(self, stream: str, subject: str) -> Message | None:
        """See `Bus`. ADR-31."""
        answer = await self._link.request(f"{wire.API}.DIRECT.GET.{stream}.{subject}")
        return wire.direct_message(answer.headers or {}, answer.data)

    async def get(self, stream: str, sequence: int) -> Message | None:
        """See `Bus`."""
        return await self._stored(stream, {"seq": sequence})

    async def delete(self, stream: str, sequence: int) -> None:
        """See `Bus`."""
        try:
            await self._api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except wire.ApiError as error:
            if (
                error.code not in {wire.NO_MESSAGE, wire.NO_SEQUENCE, wire.DELETE_FAILED}
                or await self.get(stream, sequence) is not None
            ):
                raise

    async def ensure_stream(self, config: StreamConfig) -> StreamState:
        """See `Bus`."""
        wanted = wire.stream_json(config)
        try:
            answer = await self._api(f"STREAM.INFO.{config.name}")
        except StreamMissing:
            answer = await self._create_stream(wanted)
        changes = wire.drift(wanted, answer["config"])
        if changes:
            log.info("stream.mended", stream=config.name, options=changes)
            answer = await self._update_stream({**answer["config"], **wanted}, changes)
        dropped = wire.drift(wanted, answer["config"])
        if dropped:
            raise Unsupported(
                f"nats-server {self._link.server} did not take {', '.join(dropped)} of stream {config.name}; install nats-server >= 2.12"
            )
        return wire.stream_state(answer)

    async def stream_state(self, stream: str) -> StreamState:
        """See `Bus`."""
        return wire.stream_state(await self._api(f"STREAM.INFO.{stream}"))

    async def subjects(self, stream: str, filter_: str) -> dict[str, int]:
        """See `Bus`. The server tells at most 100 000 subjects at a time."""
        found: dict[str, int] = {}
        while True:
            answer = await self._api(f"STREAM.INFO.{stream}", {"subjects_filter": filter_, "offset": len(found)})
            page = answer["state"].get("subjects") or {}
            found |= page
            if not page or len(found) >= answer.get("total", 0):
                return found

    @asynccontextmanager
    async def read(
        self, stream: str, filters: Sequence[str], start: Start, *, name: str, headers_only: bool = False
    ) -> AsyncIterator[Reader]:
        """See `Bus`."""
        consumer = f"{name}-{secrets.token_hex(4)}"
        where = f"{stream}.{consumer}"
        config = wire.reader_json(consumer, filters, start.sequence, headers_only=headers_only, inactive=_INACTIVE)
        async with reader_pull(self._link, stream, consumer).opened() as pull:
            try:
                # With a single filter it stands in the subject, where a permission can restrict it.
                path = f"CONSUMER.CREATE.{where}" + (f".{filters[0]}" if len(filters) == 1 else "")
                await self._api(path, {"stream_name": stream, "action": "create", "config": config})
                yield NatsReader(pull)
            finally:
                with contextlib.suppress(BusError):
                    await self._api(f"CONSUMER.DELETE.{where}", timeout=1)

    @asynccontextmanager
    async def work(self, config: QueueConfig) -> AsyncIterator[AsyncIterator[Job]]:
        """See `Bus`."""
        path = f"CONSUMER.CREATE.{config.stream}.{config.name}.{config.filter}"
        await self._api(path, {"stream_name": config.stream, "config": wire.queue_json(config)})
        async with job_pull(self._link, config.stream, config.name).opened() as pull, contextlib.aclosing(self._jobs(pull)) as jobs:
            yield jobs

    async def ask(self, subject: str, body: bytes, *, within: float, grace: float) -> Sequence[bytes]:
        """See `Bus`."""
        said: list[bytes] = []
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def hear(message: Msg) -> None:
            if (message.headers or {}).get("Status") == wire.NOBODY:
                lose(Unavailable(f"nobody answers on {subject}"))
                return
            said.append(message.data)
            if not first.done():
                first.set_result(None)

        def lose(why: BusError) -> None:
            if not first.done():
                first.set_exception(why)

        reply = self._link.inbox()
        self._link.listen(lose)
        try:
            async with self._link.subscribed(reply, hear), asyncio.timeout(within):
                await self._link.send(subject, body, reply)
                await first
                await asyncio.sleep(grace)
        except TimeoutError:
            if not said:
                raise Unavailable(f"nobody answered on {subject} within {within:g} s") from None
        finally:
            self._link.unlisten(lose)
            first.cancel()
        return said

    @asynccontextmanager
    async def answering(self, subject: str, answerer: Answerer) -> AsyncIterator[None]:
        """See `Bus`."""

        async def answer(message: Msg) -> None:
            if message.reply:
                said = await answerer(message.data)
                with contextlib.suppress(BusError):  # whoever asked asks again
                    await self._link.send(message.reply, said)

        async with self._link.subscribed(subject, answer, most=_QUESTIONS):
            yield

    async def close(self) -> None:
        """See `Bus`."""
        await self._link.close()

    async def _jobs(self, pull: Pull) -> AsyncGenerator[Job, None]:
        while True:
            for message in await pull.take():
                yield NatsJob(self._link, message)

    async def _stored(self, stream: str, which: Mapping[str, Any]) -> Message | None:
        """Reads from the leader: a direct get may be answered by a replica that has not seen our last write."""
        try:
            return wire.stored_message(await self._api(f"STREAM.MSG.GET.{stream}", which))
        except wire.ApiError as error:
            if error.code == wire.NO_MESSAGE:
                return None
            raise

    async def _create_stream(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._api(f"STREAM.CREATE.{wanted['name']}", wanted)
        except wire.ApiError as error:
            if error.code == wire.STREAM_EXISTS:  # somebody made it just now
                return await self._api(f"STREAM.INFO.{wanted['name']}")
            raise self._refused(wanted["name"], error) from error

    async def _update_stream(self, config: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
        try:
            return await self._api(f"STREAM.UPDATE.{config['name']}", config)
        except wire.ApiError as error:
            raise self._refused(f"{config['name']} with new {', '.join(changes)}", error) from error

    def _refused(self, what: str, error: BusError) -> Unsupported:
        return Unsupported(f"nats-server {self._link.server} refuses the stream {what}: {error}")

    async def _api(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> dict[str, Any]:
        payload = b"" if body is None else json.dumps(body).encode()
        return _answer(await self._link.request(f"{wire.API}.{path}", payload, timeout=timeout), path)


def _answer(message: Any, about: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(message.data)
    except ValueError as error:
        raise Unavailable(f"{about}: the answer is not JSON") from error
    problem = wire.error_of(answer, about)
    if problem is not None:
        raise problem
    return answer

"""The connection to NATS: nats-py as a transport, and nothing more of it.

What is ours is what must not be left to chance: every request has a deadline and fails at once when the connection goes or a permission is
missing; the readers hear of a lost connection; a watchdog notices a connection that only looks alive.

Three traits of nats-py 2.16 shape this module. It swallows cancellation while its buffer is flushed, so deadlines are timers on the
awaited answer. `flush` answers without asking the server once the read loop is dead, so the watchdog uses `rtt`. A pong that comes after
its deadline kills the read loop, so a missed ping always ends in a new connection.
"""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import DEFAULT_SUB_PENDING_MSGS_LIMIT

from common.bus import metrics
from common.bus.protocol import BusError, Denied, TooLarge, Unavailable
from common.bus.settings import BusSettings
from common.bus.wire import NOBODY, violation

_HEADER_FRAME: Final = 12  # "NATS/1.0", its line end and the empty line
_STATUS: Final = "Status"

log = structlog.get_logger(__name__)


class Link:
    """One connection. `open` it, run `watch` in the application's TaskGroup, `close` it."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self._client = Client()
        self._inbox = f"{settings.inbox}.{secrets.token_hex(8)}"
        self._tokens = itertools.count()
        self._waiting: dict[str, tuple[str, asyncio.Future[Msg]]] = {}
        self._listeners: set[Callable[[BusError], None]] = set()
        self._connected = False
        self._closing = False
        self._ended = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether requests can be sent now."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message in bytes, headers included, that the server takes."""
        return int(self._client.max_payload)

    @property
    def server(self) -> str:
        """The server's version, for people."""
        return str(self._client.connected_server_version).removeprefix("<nats server v").removesuffix(">")

    async def open(self) -> None:
        """Connects, however long it takes unless `patience` bounds it. Raises Denied if the server does not know us."""
        try:
            async with asyncio.timeout(self.settings.patience or None):
                await self._connect()
        except TimeoutError:
            await self._client.close()
            raise Unavailable(f"no NATS server answers at {self.settings.url}; start one or correct the address") from None
        except BusError:
            await self._client.close()
            raise
        self._connected = True
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)
        log.info("bus.connected", server=self.server, url=self.settings.url)

    async def request(
        self, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> Msg:
        """Sends and waits for the answer. Raises Unavailable, Denied or TooLarge."""
        deadline = timeout or self.settings.request_timeout
        loop = asyncio.get_running_loop()
        token = str(next(self._tokens))
        answer: asyncio.Future[Msg] = loop.create_future()
        self._waiting[token] = (subject.lower(), answer)
        timer = loop.call_later(deadline, _fail, answer, Unavailable(f"no answer to {subject} within {deadline:g} s"))
        try:
            await self._publish(subject, body, f"{self._inbox}.{token}", headers, deadline)
            message = await answer
        finally:
            timer.cancel()
            del self._waiting[token]
            _consume(answer)
        if message.headers and message.headers.get(_STATUS) == NOBODY:
            raise Unavailable(f"nobody answers on {subject}: there is no such stream or consumer, or it has no leader")
        return message

    async def send(self, subject: str, body: bytes = b"", reply: str = "") -> None:
        """Sends without waiting for anything."""
        await self._publish(subject, body, reply, None, self.settings.request_timeout)

    @asynccontextmanager
    async def subscribed(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]], *, most: int = DEFAULT_SUB_PENDING_MSGS_LIMIT
    ) -> AsyncIterator[None]:
        """Delivers what arrives on `subject` to `callback` while the block runs; of what waits for it, at most so many messages."""
        self._need_connection()
        subscription = await self._client.subscribe(subject, cb=callback, pending_msgs_limit=most)
        try:
            yield
        finally:
            # Without a connection too: a subscription that is not taken back comes to life again with the next one.
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def inbox(self) -> str:
        """A fresh subject below the inbox, for a subscription of its own."""
        return f"{self._inbox}.{next(self._tokens)}.d"

    def listen(self, lost: Callable[[BusError], None]) -> None:
        """Calls `lost` when the connection is gone or may not be used any more."""
        self._listeners.add(lost)

    def unlisten(self, lost: Callable[[BusError], None]) -> None:
        """Ends `listen`."""
        self._listeners.discard(lost)

    async def watch(self) -> None:
        """The watchdog. Drops a connection that does not answer; raises Unavailable when that does not help, or it is closed for good."""
        misses = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.watch_interval):
                    await self._ended.wait()
                    raise Unavailable("the connection to the bus was closed for good")
            if not self._client.is_connected:
                continue
            try:
                await self._client.rtt(self.settings.watch_timeout)
                misses = 0
            except (nats.errors.Error, OSError):
                misses += 1
                metrics.SILENT.inc()
                log.warning("bus.silent", misses=misses, timeout=self.settings.watch_timeout)
                if misses > 1:
                    raise Unavailable("the bus does not answer, and a new connection did not help") from None
                await self._client.force_reconnect()

    async def close(self) -> None:
        """Sends what is buffered and closes."""
        self._closing = True
        self._lose(Unavailable("the connection to the bus is closed"))
        await self._client.close()

    async def _connect(self) -> None:
        settings, tls = self.settings, self.settings.tls()
        options: dict[str, Any] = {"tls": tls, "tls_handshake_first": settings.tls_first} if tls else {}
        if settings.nkey_file:
            options["nkeys_seed"] = str(settings.nkey_file)
        if settings.creds_file:
            options["user_credentials"] = str(settings.creds_file)
        await self._client.connect(
            settings.servers,
            name=settings.name,
            inbox_prefix=settings.inbox,
            connect_timeout=settings.connect_timeout,
            reconnect_time_wait=settings.reconnect_wait,  # type: ignore[arg-type]  # declared int, only ever slept
            max_reconnect_attempts=-1,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            **options,
        )

    async def _publish(self, subject: str, body: bytes, reply: str, headers: Mapping[str, str] | None, deadline: float) -> None:
        self._need_connection()
        # nats-py checks the body alone; the server counts the headers too, and closes the connection of whoever sends too much.
        size = len(body) + sum(len(name) + len(value.encode()) + 4 for name, value in (headers or {}).items()) + _HEADER_FRAME
        if size > self.max_payload:
            raise TooLarge(f"the message for {subject} has {size} bytes, and the bus takes {self.max_payload}; raise max_payload")
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            async with asyncio.timeout(deadline):
                await self._client.publish(subject, body, reply, dict(headers) if headers else None)
        except TimeoutError:
            raise Unavailable(f"{subject} could not be sent within {deadline:g} s") from None
        except nats.errors.Error as error:
            raise Unavailable(f"{subject} could not be sent: {error}") from error
        # More than before, not more than none: a TaskGroup whose child failed leaves its mark on the parent until Python 3.13.
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError

    def _need_connection(self) -> None:
        if not self._client.is_connected:
            raise Unavailable(f"there is no connection to the bus at {self.settings.url}")

    async def _answered(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(message)

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if "permissions violation" in text:
            self._deny(text)
        elif not self._connected and "authorization" in text.lower():
            # Raised out of nats-py's first `connect`, which would go on for ever.
            raise Denied(
                f"the NATS server at {self.settings.url} does not accept our credentials: {text.removeprefix('nats: ')}"
            ) from error
        else:
            log.warning("bus.trouble", error=text or type(error).__name__, url=self.settings.url)

    def _deny(self, text: str) -> None:
        denied, subject = violation(text)
        metrics.DENIED.inc()
        log.error("bus.denied", error=str(denied))
        for wanted, answer in list(self._waiting.values()):
            if subject in {"", wanted}:
                _fail(answer, denied)
        for lost in list(self._listeners):
            lost(denied)

    async def _on_disconnected(self) -> None:
        if not self._closing:
            log.warning("bus.disconnected", url=self.settings.url)
        self._lose(Unavailable("the connection to the bus is gone"))

    async def _on_reconnected(self) -> None:
        metrics.RECONNECTS.inc()
        log.info("bus.reconnected", server=self.server)

    async def _on_closed(self) -> None:
        if not self._closing:
            self._ended.set()

    def _lose(self, why: BusError) -> None:
        for _, answer in list(self._waiting.values()):
            _fail(answer, why)
        for lost in list(self._listeners):
            lost(why)


def _fail(answer: "asyncio.Future[Msg]", why: BusError) -> None:
    if not answer.done():
        answer.set_exception(why)


def _consume(answer: "asyncio.Future[Msg]") -> None:
    """Takes note of an exception that nobody waits for any more, so that asyncio does not complain of it."""
    if answer.done() and not answer.cancelled():
        answer.exception()

"""A bus for a service that has to outlast it: where a connection cannot be saved, another one is made, and the service goes on meanwhile.

A server may answer nobody, refuse us, or have no leader. For most services that is a reason to end and to be started again, which costs
nothing. One whose end would be felt, as it holds something, takes this instead of `connect`: every call raises Unavailable while there is
no connection, which is what all that is built upon the bus expects now and then.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog

from common.backoff import Backoff
from common.bus.nats import NatsBus, connect
from common.bus.protocol import (
    Answerer,
    BusError,
    Job,
    Message,
    QueueConfig,
    Reader,
    Start,
    Stored,
    StreamConfig,
    StreamState,
    Unavailable,
)
from common.bus.settings import BusSettings
from common.tries import Tries

_BACKOFF: Final = Backoff(first=0.5, most=5, factor=2, jitter=1)
_CLOSING: Final = 2.0  # seconds for the end of a connection that may be dead

log = structlog.get_logger(__name__)


class LastingBus:
    """See `Bus`. `run` it in the application's TaskGroup. `why` is the reason for which there was last no connection."""

    def __init__(self, settings: BusSettings, *, backoff: Backoff = _BACKOFF) -> None:
        self._settings = settings
        self._backoff = backoff
        self._bus: NatsBus | None = None
        self.why = f"there is no connection to the bus at {settings.url} yet"

    async def run(self) -> None:
        """Connects, and again whenever that is needed, until cancelled."""
        tries = Tries(self._backoff)
        while True:
            try:
                self._bus = await connect(self._settings)
                tries.done()
                await self._bus.watch()
            except BusError as error:
                self.why = str(error)
                log.error("bus.given_up", reason=self.why, attempt=tries.failed)
            finally:
                await self.close()
            await tries.pause()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._bus is not None and self._bus.connected

    @property
    def max_payload(self) -> int:
        """See `Bus`."""
        return self._there.max_payload

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str], *, expected_last: int | None = None) -> Stored:
        """See `Bus`."""
        return await self._there.publish(subject, body, headers, expected_last=expected_last)

    async def get_last(self, stream: str, subject: str) -> Message | None:
        """See `Bus`."""
        return await self._there.get_last(stream, subject)

    async def recall(self, stream: str, subject: str) -> Message | None:
        """See `Bus`."""
        return await self._there.recall(stream, subject)

    async def get(self, stream: str, sequence: int) -> Message | None:
        """See `Bus`."""
        return await self._there.get(stream, sequence)

    async def delete(self, stream: str, sequence: int) -> None:
        """See `Bus`."""
        await self._there.delete(stream, sequence)

    async def ensure_stream(self, config: StreamConfig) -> StreamState:
        """See `Bus`."""
        return await self._there.ensure_stream(config)

    async def stream_state(self, stream: str) -> StreamState:
        """See `Bus`."""
        return await self._there.stream_state(stream)

    async def subjects(self, stream: str, filter_: str) -> dict[str, int]:
        """See `Bus`."""
        return await self._there.subjects(stream, filter_)

    def read(
        self, stream: str, filters: Sequence[str], start: Start, *, name: str, headers_only: bool = False
    ) -> AbstractAsyncContextManager[Reader]:
        """See `Bus`."""
        return self._there.read(stream, filters, start, name=name, headers_only=headers_only)

    def work(self, config: QueueConfig) -> AbstractAsyncContextManager[AsyncIterator[Job]]:
        """See `Bus`."""
        return self._there.work(config)

    async def ask(self, subject: str, body: bytes, *, within: float, grace: float) -> Sequence[bytes]:
        """See `Bus`."""
        return await self._there.ask(subject, body, within=within, grace=grace)

    def answering(self, subject: str, answerer: Answerer) -> AbstractAsyncContextManager[None]:
        """See `Bus`. Ends to answer with the connection; enter it again when there is another."""
        return self._there.answering(subject, answerer)

    async def close(self) -> None:
        """Closes the connection that there is."""
        bus, self._bus = self._bus, None
        if bus is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await bus.close()

    @property
    def _there(self) -> NatsBus:
        if self._bus is None:
            raise Unavailable(self.why)
        return self._bus

"""Proclaim: the addresses that are given, as a wish on the bus that some node hold them (`common.contracts.addresses`).

The wish stands at one subject, where the newest stays. Only the leader says it. What stands there is looked at from time to time, so that a
bus that was lost, or a message of somebody who led before, is mended.
"""

import asyncio
import contextlib
import uuid
from typing import Final

import structlog

from common.backoff import Backoff
from common.bus.protocol import Bus, BusError
from common.bus.streams import WANTED
from common.codec import CodecError, decode, encode
from common.contracts.addresses import WHAT, AddressesWanted, WantedAddress, WishError, read_wanted, wanted_event
from common.contracts.subjects import wanted_subject
from common.runtime.reports import timestamp
from common.tries import Tries

LOOK: Final = 30.0  # seconds between two looks without news
_BACKOFF: Final = Backoff(first=0.1, most=10, factor=2, jitter=1)

log = structlog.get_logger(__name__)


class Proclaimer:
    """Says the newest wish of `service`. `run` it while leading."""

    def __init__(self, bus: Bus, *, cluster: str, service: str, instance: str) -> None:
        self._bus = bus
        self._subject = wanted_subject(cluster, service, WHAT)
        self._service = service
        self._instance = instance
        self._wish: tuple[WantedAddress, ...] | None = None
        self._news = asyncio.Event()

    def forget(self) -> None:
        """Wishes nothing until it is told anew: somebody else may have led meanwhile, and have said more than we know."""
        self._wish = None

    def want(self, addresses: tuple[WantedAddress, ...]) -> None:
        """Takes the whole wish."""
        if addresses != self._wish:
            self._wish = addresses
            self._news.set()

    async def run(self) -> None:
        """Says it until cancelled."""
        tries = Tries(_BACKOFF)
        while True:
            self._news.clear()
            try:
                await self._say()
                tries.done()
            except BusError as error:
                log.warning("wish.delayed", reason=str(error), attempt=tries.failed)
                await tries.pause()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._news.wait()

    async def _say(self) -> None:
        if self._wish is None:
            return
        last = await self._bus.get_last(WANTED.name, self._subject)
        stands = None
        if last is not None and not last.gone:
            with contextlib.suppress(CodecError, WishError):
                stands = read_wanted(decode(last.headers, last.body))
        if stands is not None and stands.addresses == self._wish:
            return
        revision = stands.revision + 1 if stands is not None else 1
        wish = AddressesWanted(instance=self._instance, revision=revision, addresses=self._wish)
        encoded = encode(wanted_event(wish, service=self._service, id=str(uuid.uuid4()), time=timestamp()))
        expected = last.sequence if last is not None else 0
        await self._bus.publish(self._subject, encoded.body, encoded.headers, expected_last=expected)
        log.info("wish.said", addresses=len(wish.addresses), revision=revision)

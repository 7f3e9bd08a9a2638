"""Scrape: what HAProxy counted, fetched when somebody asks for our metrics, so that one scrape tells of both.

It has a connection of its own, so no change waits for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from haproxy_lb.exposition import exposition
from haproxy_lb.model import BackendKey
from haproxy_lb.runtime import Lost, Runtime
from haproxy_lb.slots import Slot

_COUNTS: Final = ("show stat services 1 -1", "show stat -1 6 -1")  # of the hall (1), backends (2) and servers (4), as CSV

log = structlog.get_logger(__name__)


class Scrape:
    """The counts of the HAProxy that `runtime` talks to. While it is away there are none. `slots` are those in use at the moment."""

    def __init__(self, runtime: Runtime, slots: Callable[[], Mapping[BackendKey, Slot]], endpoints: int) -> None:
        self._runtime = runtime
        self._slots = slots
        self._endpoints = endpoints
        self._lock = asyncio.Lock()

    async def text(self) -> str:
        """The series as they are now."""
        try:
            async with self._lock:
                hall, slots = await self._runtime.ask(_COUNTS)
        except Lost as error:
            log.warning("scrape.without_haproxy", reason=str(error))
            return ""
        finally:
            self._runtime.close()  # the process may be another one at the next time
        return exposition(hall, slots, self._slots(), self._endpoints)

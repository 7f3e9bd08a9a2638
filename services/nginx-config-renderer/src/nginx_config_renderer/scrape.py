"""Scrape: what nginx counted, fetched when somebody asks for our metrics, so that one scrape tells of both."""

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from nginx_config_renderer.admin import Admin, AdminError
from nginx_config_renderer.exposition import endpoints, exposition

log = structlog.get_logger(__name__)


class Knows(Protocol):
    """Which objects there are."""

    def knows(self, name: str) -> bool:
        """Whether there is an Ingress or a backend of that name."""
        ...

    @property
    def endpoints(self) -> Mapping[str, int]:
        """How many endpoints each backend has."""
        ...


class Scrape:
    """The counts of one nginx, for the objects that `wanted` knows, once that is `complete`. While nginx is away there are none."""

    def __init__(self, admin: Admin, wanted: Knows, complete: Callable[[], bool]) -> None:
        self._admin = admin
        self._wanted = wanted
        self._complete = complete

    async def text(self) -> str:
        """The series as they are now. What belongs to objects that are gone is forgotten."""
        try:
            counts = await self._admin.counts()
            text, gone = exposition(counts.numbers, counts.buckets, counts.connections, self._wanted.knows)
            if gone and self._complete():
                await self._admin.forget(gone)
        except AdminError as error:
            log.warning("scrape.without_nginx", reason=str(error))
            text = ""
        return text + endpoints(self._wanted.endpoints)

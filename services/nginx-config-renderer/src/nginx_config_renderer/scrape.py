"""Scrape: what nginx counted, fetched when somebody asks for our metrics, so that one scrape tells of both."""

from collections.abc import Callable

import structlog

from nginx_config_renderer.admin import Admin, AdminError
from nginx_config_renderer.exposition import exposition

log = structlog.get_logger(__name__)


class Scrape:
    """The counts of one nginx; `knows` says which objects there are, once that is `complete`. While nginx is away there are none."""

    def __init__(self, admin: Admin, knows: Callable[[str], bool], complete: Callable[[], bool]) -> None:
        self._admin = admin
        self._knows = knows
        self._complete = complete

    async def text(self) -> str:
        """The series as they are now. What belongs to objects that are gone is forgotten."""
        try:
            counts = await self._admin.counts()
            text, gone = exposition(counts.numbers, counts.buckets, counts.connections, self._knows)
            if gone and self._complete():
                await self._admin.forget(gone)
        except AdminError as error:
            log.warning("scrape.without_nginx", reason=str(error))
            return ""
        return text

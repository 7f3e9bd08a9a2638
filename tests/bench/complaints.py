"""How soon the Event of a bad object is there, as whoever watches the API server's Events sees it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from common.kube.events import EVENTS
from common.kube.reflection import Event
from common.kube.reflector import Reflector
from common.kube.session import KubeSession, Scope

TOLD_WITHIN: Final = 60.0


class Complaints:
    """The moments, in the loop's time, at which the first Event about each object came."""

    def __init__(self) -> None:
        self._first: dict[str, asyncio.Future[float]] = {}

    async def about(self, name: str) -> float:
        """Waits for the first Event about the object of that name."""
        async with asyncio.timeout(TOLD_WITHIN):
            return await self._future(name)

    async def listen(self, kube: KubeSession, namespace: str) -> None:
        """Takes all Events of a namespace, until cancelled."""
        async for seen in Reflector(kube, EVENTS, Scope(namespace=namespace)).observe():
            for raw in [seen.object] if isinstance(seen, Event) else seen.items:
                self._note(raw)

    def _note(self, raw: Any) -> None:
        first = self._future(raw.get("regarding", {}).get("name", ""))
        if not first.done():
            first.set_result(asyncio.get_running_loop().time())

    def _future(self, name: str) -> asyncio.Future[float]:
        return self._first.setdefault(name, asyncio.get_running_loop().create_future())


@asynccontextmanager
async def complaints(kube: KubeSession, namespace: str) -> AsyncIterator[Complaints]:
    """Listens while the block runs."""
    made = Complaints()
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(made.listen(kube, namespace))
        yield made
        listening.cancel()

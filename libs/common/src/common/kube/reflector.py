"""Reflector: all objects of a resource, and then every change, for ever.

    async for observation in Reflector(kube, Resource("", "services")).observe():
        match observation:
            case Listed(items=items): ...       # all there are; whatever else was known is gone
            case Event(kind=kind, object=raw): ...

What is asked of the API server and when is decided by `common.kube.reflection`; here it is done. A reader that is slow slows the server
down; if that goes on for so long that history is lost, there is a new listing.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import structlog

from common.contracts.refs import Resource
from common.kube.errors import Call, KubeError
from common.kube.reflection import Event, Health, List, Listed, Phase, Reflection, Stream, Tuning, Wait, Watch
from common.kube.session import EVERYTHING, SILENCE, KubeSession, Scope

BOOKMARKS: Final = {"allowWatchBookmarks": "true"}
INITIAL: Final = BOOKMARKS | {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}

log = structlog.get_logger(__name__)


class Reflector:
    """Keeps the objects of `scope` in view."""

    def __init__(
        self,
        session: KubeSession,
        resource: Resource,
        scope: Scope = EVERYTHING,
        *,
        tuning: Tuning | None = None,
        silence: float = SILENCE,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._resource = resource
        self._scope = scope
        self._silence = silence
        self._chance = chance
        self._tuning = tuning or Tuning()
        self._reflection = self._new()

    @property
    def health(self) -> Health:
        """How it stands; `since` is on the clock of `time.monotonic`."""
        return self._reflection.health

    async def observe(self) -> AsyncGenerator[Listed | Event]:
        """Everything, then every change. Never ends by itself; called again, it begins anew."""
        reflection = self._reflection = self._new()
        while True:
            step = reflection.step(self._chance())
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                continue
            try:
                async with aclosing(self._ask(reflection, step)) as observations:
                    async for observation in observations:
                        yield observation
            except KubeError as error:
                reflection.failed(error, time.monotonic(), self._chance())
                self._tell(error)

    async def _ask(self, reflection: Reflection, step: List | Stream | Watch) -> AsyncGenerator[Listed | Event]:
        """One request, or the pages of one listing."""
        match step:
            case List():
                listing = await self._session.list(self._resource, self._scope)
                yield self._listed(reflection.listed(listing.items, listing.version, time.monotonic()))
                return
            case Stream(seconds):
                query = INITIAL
            case Watch(version, seconds):
                query = BOOKMARKS | {"resourceVersion": version}
        async with self._session.watch(self._resource, self._scope, query, seconds=seconds, silence=self._silence) as batches:
            reflection.opened(time.monotonic())
            async for batch in batches:
                now = time.monotonic()
                for line in batch:
                    observation = reflection.receive(line, now)
                    if isinstance(observation, Event):
                        yield observation
                    elif observation is not None:
                        yield self._listed(observation)
        reflection.ended(time.monotonic())

    def _new(self) -> Reflection:
        call = Call("watch", "", self._resource, self._scope.namespace)
        return Reflection(call, self._tuning, time.monotonic())

    def _listed(self, listed: Listed) -> Listed:
        log.info("reflector.listed", resource=str(self._resource), count=len(listed.items), version=listed.resource_version)
        return listed

    def _tell(self, error: KubeError) -> None:
        tell = log.warning if self.health.phase is Phase.FAILING else log.info
        tell("reflector.interrupted", resource=str(self._resource), phase=self.health.phase.value, error=str(error))

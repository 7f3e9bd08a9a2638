"""An API server as a source: a reflector's observations in the watcher's words."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from common.contracts.objects import Projection
from common.kube import reflection
from common.kube.reflector import Reflector
from watcher.model import Gone, Listed, Observation, Put


class ResourceSource:
    """All objects of one resource."""

    def __init__(self, reflector: Reflector, model: type[Projection]) -> None:
        self._reflector = reflector
        self._model = model

    @property
    def trouble(self) -> str | None:
        """Why what was observed may be out of date."""
        health = self._reflector.health
        if health.resource_version is None:
            return health.last_error or f"{self._model.resource} are not listed yet"
        return health.last_error if health.phase is reflection.Phase.FAILING else None

    async def observe(self) -> AsyncGenerator[Observation]:
        """All objects, then every change. Never ends by itself."""
        async with aclosing(self._reflector.observe()) as observations:
            async for seen in observations:
                match seen:
                    case reflection.Listed(items=items, resource_version=version):
                        yield Listed(self._model, items, version)
                    case reflection.Event(kind="DELETED", object=raw):
                        yield Gone(self._model, raw)
                    case reflection.Event(object=raw):
                        yield Put(self._model, raw)

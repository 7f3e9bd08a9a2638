"""An API server as a source: a reflector's observations in the watcher's words."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from common.contracts.objects import Projection
from common.kube import reflection
from common.kube.reflector import Reflector
from watcher.model import Gone, Listed, Observation, Put


async def observe(reflector: Reflector, model: type[Projection]) -> AsyncIterator[Observation]:
    """All objects of `model`, then every change. Never ends by itself."""
    async with aclosing(reflector.observe()) as observations:
        async for seen in observations:
            match seen:
                case reflection.Listed(items=items, resource_version=version):
                    yield Listed(model, items, version)
                case reflection.Event(kind="DELETED", object=raw):
                    yield Gone(model, raw)
                case reflection.Event(object=raw):
                    yield Put(model, raw)

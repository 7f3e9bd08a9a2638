"""An API server as a source, with one reflector a resource: its observations in the watcher's words."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from common.contracts.objects import BY_RESOURCE, Projection, unstructured
from common.contracts.refs import Resource
from common.kube import reflection
from common.kube.reflector import Reflector
from common.kube.session import KubeSession
from watcher.model import Gone, Listed, Observation, Put
from watcher.office import Source, Sources


def cluster(session: KubeSession, models: Iterable[type[Projection]]) -> Sources:
    """The objects of an API server."""

    def sources() -> Sequence[Source]:
        return [ResourceSource(Reflector(session, model.resource), model) for model in models]

    return sources


async def models(session: KubeSession, resources: Iterable[str]) -> tuple[type[Projection], ...]:
    """A projection for each resource, named as in `ingresses.networking.k8s.io`. Asks the server about those that have no model.

    Raises UnknownResource for one that the server does not have.
    """
    found: list[type[Projection]] = []
    for name in sorted(set(resources)):
        plural, _, group = name.partition(".")
        resource = Resource(group, plural)
        known = BY_RESOURCE.get(resource)
        if known is None:
            api = await session.api(resource)
            known = unstructured(resource, api.api_version, api.kind, namespaced=api.namespaced)
        found.append(known)
    return tuple(found)


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

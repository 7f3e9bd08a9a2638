"""The two kinds of sources: a folder of manifests, or an API server with one reflector a resource."""

from collections.abc import Iterable, Sequence

from common.contracts.objects import BY_RESOURCE, MODELS, Projection, unstructured
from common.contracts.refs import Resource
from common.kube.reflector import Reflector
from common.kube.session import KubeSession
from common.runtime.app import Fatal
from watcher.cluster import ResourceSource
from watcher.folder import Folder
from watcher.office import Source, Sources
from watcher.settings import Settings


def folder(settings: Settings) -> Sources:
    """The manifests of a folder. Raises Fatal if there is no such folder."""
    directory = settings.manifests
    if directory is None or not directory.is_dir():
        raise Fatal(f"--manifests {directory}: there is no such folder; make it, or name one that holds manifests")
    wanted = set(settings.resources)
    models = tuple(model for model in MODELS if str(model.resource) in wanted)

    def sources() -> Sequence[Source]:
        return [Folder(directory, models)]

    return sources


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

"""The API server as the renderer needs it: to read one Secret at a time, and to tell what became of Ingresses."""

from collections.abc import Sequence
from typing import Final

from common.contracts.objects import Pod, Secret
from common.contracts.refs import ObjectRef
from common.kube.errors import KubeError, NotFound
from common.kube.session import KubeSession, Scope
from common.kube.status import Writer
from common.runtime.app import App
from common.runtime.cluster import hold, recorder_of, session_of
from nginx_config_renderer.follow import Intake
from nginx_config_renderer.secrets import Data, FolderSecrets, SecretError, SecretSource, data_of
from nginx_config_renderer.settings import Settings
from nginx_config_renderer.status import addresses_of
from nginx_config_renderer.voice import Addresses, Voice
from nginx_config_renderer.wanted import Wanted

SERVICE: Final = "nginx-config-renderer"


async def secrets_of(app: App[Settings], wanted: Wanted, intake: Intake) -> SecretSource:
    """Where Secrets are read; where there is a cluster, it is told what became of its objects. Raises Fatal if none is named."""
    if app.settings.manifests is not None:
        return FolderSecrets(app.settings.manifests)
    return await _join(app, wanted, intake)


async def _join(app: App[Settings], wanted: Wanted, intake: Intake) -> "ClusterSecrets":
    """Wires what needs the cluster that the settings name; returns its Secrets. Raises Fatal if they name none."""
    settings = app.settings
    session = await session_of(app, settings.kubeconfig)
    voice = Voice(wanted, intake, recorder_of(app, session), Writer(session, SERVICE), _addresses(session, settings, wanted))
    app.spawn("voice", hold(session, settings.lease, settings.lease_terms, voice.speak))
    return ClusterSecrets(session)


def _addresses(session: KubeSession, settings: Settings, wanted: Wanted) -> Addresses:
    """Where the edges are reached: as told, or where a Service is, else on the nodes of all pods like ours; nowhere if that is not
    wanted.
    """

    async def told() -> Sequence[str]:
        return settings.publish_status_address if settings.publish_status else ()

    async def nodes() -> Sequence[str]:
        scope = Scope(namespace=settings.lease_namespace, labels=settings.publish_status_pods)
        pods = [Pod.project(raw) for raw in (await session.list(Pod.resource, scope)).items]
        return [pod.status.host_ip for pod in pods if pod.status.host_ip and not pod.metadata.deletion_timestamp]

    async def served() -> Sequence[str]:
        return addresses_of(wanted.published)

    if settings.publish_status and settings.publish_service:
        return served
    return told if settings.publish_status_address or not settings.publish_status or not settings.lease_name else nodes


class ClusterSecrets:
    """Secrets of an API server."""

    def __init__(self, session: KubeSession) -> None:
        self._session = session

    async def read(self, namespace: str, name: str) -> Data | None:
        """See SecretSource."""
        try:
            raw = await self._session.get(ObjectRef(Secret.resource, namespace, name))
        except NotFound:
            return None
        except KubeError as error:
            raise SecretError(str(error)) from error
        return data_of(raw)

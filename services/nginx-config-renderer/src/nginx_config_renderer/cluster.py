"""The API server as the renderer needs it: to read one Secret at a time."""

from common.contracts.objects import Secret
from common.contracts.refs import ObjectRef
from common.kube.errors import KubeError, Misconfigured, NotFound
from common.kube.session import KubeSession
from common.runtime.app import App, Fatal
from nginx_config_renderer.secrets import Data, SecretError, data_of
from nginx_config_renderer.settings import Settings


async def secrets(app: App[Settings]) -> "ClusterSecrets":
    """The Secrets of the cluster that the settings name. Raises Fatal if they name none."""
    kubeconfig = str(app.settings.kubeconfig) if app.settings.kubeconfig else None
    try:
        return ClusterSecrets(await app.enter(KubeSession.auto(kubeconfig, agent="seaway-nginx-config-renderer")))
    except Misconfigured as error:
        raise Fatal(str(error)) from error


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

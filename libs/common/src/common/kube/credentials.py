"""Where the cluster is, and who we are to it.

What a kubeconfig or a pod's service account means is known to `kubernetes_asyncio`, and asked of it, nothing else of that library is
used. Credentials are read again every minute, since tokens rotate on disk and plugins hand out short-lived ones, and at once when the
server refuses them.
"""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

import yaml
from kubernetes_asyncio import config
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)
from kubernetes_asyncio.config.kube_config import KubeConfigLoader

from common.kube.errors import Misconfigured

HOME: Final = "~/.kube/config"
VARIABLE: Final = "KUBECONFIG"
FRESH: Final = 60.0  # seconds after which credentials are read again
DEADLINE: Final = 60.0  # seconds for reading them; a plugin may ask a person's identity provider


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server and what to show it. Its text says nothing of the secret."""

    host: str
    authorization: str
    ca_file: str | None
    cert_file: str | None
    key_file: str | None
    verify: bool
    server_name: str | None
    proxy: str | None

    def __repr__(self) -> str:
        return f"Access(host={self.host!r})"

    def trust(self, context: ssl.SSLContext) -> None:
        """Loads our certificates into `context`; done again, new connections use the new ones."""
        if self.ca_file is not None:
            context.load_verify_locations(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        # Cluster authorities often lack the extensions that Python 3.13 began to demand; Go and kubectl do not ask for them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE


class Credentials(Protocol):
    """A source of access."""

    async def access(self, *, renew: bool = False) -> Access:
        """Access as it is now. `renew` reads everything again: what we had was refused. Raises Misconfigured."""
        ...


class FileCredentials:
    """One or more kubeconfig files, separated by colons as in KUBECONFIG; the current context, or the one named."""

    def __init__(self, paths: str, context: str | None = None) -> None:
        self._paths = paths
        self._context = context
        self._loader: KubeConfigLoader | None = None
        self._configuration = Configuration()
        self._read = 0.0

    @classmethod
    def usual(cls) -> Self:
        """What `kubectl` would use outside of a pod."""
        return cls(os.environ.get(VARIABLE) or HOME)

    async def access(self, *, renew: bool = False) -> Access:
        """Access as the files give it now."""
        async with _explained(self._paths):
            if self._loader is None or renew:
                self._loader = await self._load()
                self._read = time.monotonic()
            elif time.monotonic() - self._read > FRESH and not _lasting(self._loader):
                await self._loader.load_and_set(self._configuration)
                self._read = time.monotonic()
            return await _access(self._configuration)

    async def _load(self) -> KubeConfigLoader:
        if not any(map(_is_file, self._paths.split(os.pathsep))):
            raise Misconfigured(f"kubeconfig {self._paths} does not exist; name one with --kubeconfig or {VARIABLE}")
        self._configuration = Configuration()
        # Writing back refreshed tokens fails in the library, and a service has no business in a person's file.
        return await config.load_kube_config(
            self._paths, context=self._context, client_configuration=self._configuration, persist_config=False
        )


def _is_file(path: str) -> bool:
    return path != "" and Path(path).expanduser().is_file()


def _lasting(loader: KubeConfigLoader) -> bool:
    """Whether a plugin's answer has no end, so that it holds until the server refuses it."""
    return "exec" in (loader._user or ()) and not hasattr(loader, "exec_plugin_expiry")  # noqa: SLF001 nothing else tells it


class PodCredentials:
    """The service account of the pod that we run in; the library reads its token again every minute."""

    def __init__(self, token_file: str = SERVICE_TOKEN_FILENAME, ca_file: str = SERVICE_CERT_FILENAME) -> None:
        self._token_file = token_file
        self._ca_file = ca_file
        self._configuration: Configuration | None = None

    async def access(self, *, renew: bool = False) -> Access:
        """Access as the mounted files give it now."""
        async with _explained("the pod's service account"):
            if self._configuration is None or renew:
                self._configuration = Configuration()
                InClusterConfigLoader(self._token_file, self._ca_file).load_and_set(self._configuration)
            return await _access(self._configuration)


def find(kubeconfig: str | None = None) -> Credentials:
    """The cluster that is meant: `kubeconfig`, else KUBECONFIG, else the pod's, else the one of `~/.kube/config`."""
    if kubeconfig is not None:
        return FileCredentials(kubeconfig)
    if os.environ.get(VARIABLE):
        return FileCredentials(os.environ[VARIABLE])
    if os.environ.get(SERVICE_HOST_ENV_NAME):
        return PodCredentials()
    if _is_file(HOME):
        return FileCredentials(HOME)
    raise Misconfigured(f"no cluster is named: give --kubeconfig FILE, set {VARIABLE}, write {HOME}, or run in a pod")


async def _access(configuration: Configuration) -> Access:
    key = await configuration.get_api_key_with_prefix("BearerToken")
    return Access(
        host=configuration.host or "",
        authorization=(key or "").strip(),
        ca_file=configuration.ssl_ca_cert,
        cert_file=configuration.cert_file,
        key_file=configuration.key_file,
        verify=configuration.verify_ssl,
        server_name=configuration.tls_server_name,
        proxy=configuration.proxy,
    )


@asynccontextmanager
async def _explained(origin: str) -> AsyncIterator[None]:
    """Turns what the library raises for a wrong file into a sentence that names it."""
    try:
        async with asyncio.timeout(DEADLINE):
            yield
    except TimeoutError as error:
        raise Misconfigured(f"{origin}: no credentials within {DEADLINE:g} s; run its plugin by hand") from error
    except (config.ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Misconfigured(f"{origin} cannot be used: {error}") from error

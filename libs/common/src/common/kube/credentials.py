"""Where the cluster is, and who we are to it.

Credentials are read again every minute, since tokens rotate on disk and plugins hand out short-lived ones, and at once when the server
refuses them.
"""

import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from common.kube.errors import Misconfigured

HOME: Final = "~/.kube/config"
VARIABLE: Final = "KUBECONFIG"
FRESH: Final = 60.0  # seconds after which credentials are read again
DEADLINE: Final = 60.0  # seconds for reading them; a plugin may ask a person's identity provider

# What every pod has (kubernetes.io/docs/tasks/run-application/access-api-from-pod).
SERVICE_HOST: Final = "KUBERNETES_SERVICE_HOST"
SERVICE_PORT: Final = "KUBERNETES_SERVICE_PORT"
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


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


class PodCredentials:
    """The service account of the pod that we run in."""

    def __init__(self, token_file: Path = _ACCOUNT / "token", ca_file: Path = _ACCOUNT / "ca.crt") -> None:
        self._token_file = token_file
        self._ca_file = ca_file
        self._access: Access | None = None
        self._read = 0.0

    async def access(self, *, renew: bool = False) -> Access:
        """Access as the mounted files give it now."""
        now = time.monotonic()
        if self._access is None or renew or now - self._read > FRESH:
            self._access, self._read = self._now(), now
        return self._access

    def _now(self) -> Access:
        host, port = os.environ.get(SERVICE_HOST), os.environ.get(SERVICE_PORT)
        if not host or not port:
            raise Misconfigured(f"{SERVICE_HOST} and {SERVICE_PORT} are not set, as they are in a pod; name a kubeconfig instead")
        try:
            token = self._token_file.read_text().strip()
            self._ca_file.read_bytes()
        except (OSError, UnicodeDecodeError) as error:
            mend = "mount the account's token, or name a kubeconfig"
            raise Misconfigured(f"the pod's service account cannot be used: {error}; {mend}") from error
        return Access(
            host=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            authorization=f"Bearer {token}",
            ca_file=str(self._ca_file),
            cert_file=None,
            key_file=None,
            verify=True,
            server_name=None,
            proxy=None,
        )


def find(kubeconfig: str | None = None) -> Credentials:
    """The cluster that is meant: `kubeconfig`, else KUBECONFIG, else the pod's, else the one of `~/.kube/config`."""
    if kubeconfig is not None:
        return from_files(kubeconfig)
    if os.environ.get(VARIABLE):
        return from_files()
    if os.environ.get(SERVICE_HOST):
        return PodCredentials()
    if is_file(HOME):
        return from_files(HOME)
    raise Misconfigured(f"no cluster is named: give --kubeconfig FILE, set {VARIABLE}, write {HOME}, or run in a pod")


def from_files(paths: str | None = None) -> Credentials:
    """The cluster of kubeconfig files, separated by colons; without any what `kubectl` would use outside of a pod."""
    from common.kube.kubeconfig import FileCredentials  # noqa: PLC0415 see there what it takes to load

    return FileCredentials(paths or os.environ.get(VARIABLE) or HOME)


def is_file(path: str) -> bool:
    """Whether a path of a kubeconfig leads to a file."""
    return path != "" and Path(path).expanduser().is_file()

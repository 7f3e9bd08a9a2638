"""Where the cluster is: the pod's own service account, or kubeconfig files."""

import os
import time
from pathlib import Path
from typing import Final

from common.kube.access import FRESH, Access, Credentials
from common.kube.errors import Misconfigured

HOME: Final = "~/.kube/config"
VARIABLE: Final = "KUBECONFIG"

# What every pod has (kubernetes.io/docs/tasks/run-application/access-api-from-pod).
SERVICE_HOST: Final = "KUBERNETES_SERVICE_HOST"
SERVICE_PORT: Final = "KUBERNETES_SERVICE_PORT"
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


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
    if Path(HOME).expanduser().is_file():
        return from_files(HOME)
    raise Misconfigured(f"no cluster is named: give --kubeconfig FILE, set {VARIABLE}, write {HOME}, or run in a pod")


def from_files(paths: str | None = None) -> Credentials:
    """The cluster of kubeconfig files, separated by colons; without any what `kubectl` would use outside of a pod."""
    from common.kube.kubeconfig import FileCredentials  # noqa: PLC0415 see there what it takes to load

    return FileCredentials(paths or os.environ.get(VARIABLE) or HOME)

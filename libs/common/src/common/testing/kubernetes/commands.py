"""How etcd and kube-apiserver are called: for a test that needs only these two, and for the whole cluster.

The flags are those of https://etcd.io/docs/v3.6/op-guide/configuration/ and
https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ControlPlaneFiles:
    """Where the control plane of one cluster keeps what."""

    root: Path

    @property
    def etcd_data(self) -> Path:
        """All objects."""
        return self.root / "etcd"

    @property
    def certificates(self) -> Path:
        """The directory of the API server's serving certificate."""
        return self.root / "certificates"

    @property
    def authority(self) -> Path:
        """What clients trust. The API server writes it when it starts for the first time."""
        return self.certificates / "apiserver.crt"

    @property
    def tokens(self) -> Path:
        """The identities."""
        return self.root / "tokens.csv"

    @property
    def signing_key(self) -> Path:
        """Signs the tokens of ServiceAccounts."""
        return self.root / "service-accounts.key"


def etcd(files: ControlPlaneFiles, client_url: str, peer_url: str) -> list[str]:
    """The arguments of a single etcd. It does not wait for the disk: a test's data need not survive a power failure."""
    return [
        f"--data-dir={files.etcd_data}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver(
    files: ControlPlaneFiles, *, address: str, port: int, etcd_url: str, service_range: str, more: Sequence[str] = ()
) -> list[str]:
    """The arguments of an API server with RBAC on."""
    return [
        f"--etcd-servers={etcd_url}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--cert-dir={files.certificates}",
        f"--token-auth-file={files.tokens}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={files.signing_key}",
        f"--service-account-key-file={files.signing_key}",
        f"--service-cluster-ip-range={service_range}",
        "--profiling=false",
        *more,
    ]

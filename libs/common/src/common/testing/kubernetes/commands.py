"""How the programs of a control plane are called: the two that a test may have for itself, and those of a whole cluster.

The flags are those of https://etcd.io/docs/v3.6/op-guide/configuration/ and
https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_END = "-----END CERTIFICATE-----\n"


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
        """What clients trust."""
        return self.root / "authority.crt"

    def find_authority(self) -> bool:
        """Whether `authority` is there. The API server signs its own certificate at its first start, and puts the signer's after it."""
        served = self.certificates / "apiserver.crt"
        if not self.authority.exists() and served.exists():
            blocks = served.read_text().split(_END)
            if len(blocks) == 3:  # both, and nothing after them
                self.authority.write_text(blocks[1].lstrip() + _END)
        return self.authority.exists()

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
        "--name=seaway",
        f"--data-dir={files.etcd_data}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=seaway={peer_url}",
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


def controller_manager(files: ControlPlaneFiles, *, address: str, pod_range: str, service_range: str) -> list[str]:
    """The arguments of the controllers, each of which acts under an account of its own."""
    return [
        f"--kubeconfig={files.root}/kube-controller-manager.kubeconfig",
        f"--bind-address={address}",
        f"--cert-dir={files.root}/kube-controller-manager",
        f"--root-ca-file={files.authority}",
        f"--service-account-private-key-file={files.signing_key}",
        "--use-service-account-credentials",
        # Some forty controllers make an account each, and the usual 20 requests a second make the first Pod wait for that.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--allocate-node-cidrs",
        f"--cluster-cidr={pod_range}",
        f"--service-cluster-ip-range={service_range}",
        f"--flex-volume-plugin-dir={files.root}/no-plugins",
        "--leader-elect=false",
    ]


def scheduler(files: ControlPlaneFiles, *, address: str) -> list[str]:
    """The arguments of the scheduler."""
    return [
        f"--kubeconfig={files.root}/kube-scheduler.kubeconfig",
        f"--bind-address={address}",
        f"--cert-dir={files.root}/kube-scheduler",
        "--leader-elect=false",
    ]

"""A node: containerd, a network for pods, the kubelet and kube-proxy, each with its configuration.

containerd is the distribution's program with directories and a socket of its own; the system's service is neither used nor touched. Pods
are on point-to-point links that the machine routes, so a Service answers the pod next door without bridge filters, and nothing is
translated on the way out: pods reach each other and this machine, and not the world.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from common.testing.kubernetes import cgroups
from common.testing.kubernetes.daemons import Daemon
from common.testing.kubernetes.images import PAUSE
from common.testing.kubernetes.machine import NETWORK, Addresses

NAME = "seaway"
# Debian's packages, by a program or file that each brings.
PACKAGES: Mapping[str, str] = {
    "busybox-static": "/bin/busybox",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "iproute2": "ip",
    "iptables": "iptables",
    "openssl": "openssl",
    "runc": "runc",
}


def missing_packages() -> list[str]:
    """Packages that must be installed before a node can run."""
    return sorted(package for package, program in PACKAGES.items() if shutil.which(program) is None)


def containerd(root: Path) -> Daemon:
    """The runtime. Its environment is the caller's, so that it finds registries as the caller would."""
    return Daemon(root / "bin/containerd", [f"--config={root}/containerd.toml"], root / "logs/containerd.log", dict(os.environ))


def socket(root: Path) -> Path:
    """Where containerd listens."""
    return root / "containerd/containerd.sock"


def kubelet(root: Path, addresses: Addresses) -> Daemon:
    """The kubelet, with all of its files below `root`."""
    arguments = [
        f"--config={root}/kubelet.yaml",
        f"--kubeconfig={root}/private/kubelet.kubeconfig",
        f"--root-dir={root}/kubelet",
        f"--cert-dir={root}/private/kubelet",
        f"--hostname-override={NAME}",
        f"--node-ip={addresses.node}",
    ]
    return Daemon(root / "bin/kubelet", arguments, root / "logs/kubelet.log")


def kube_proxy(root: Path, addresses: Addresses) -> Daemon:
    """Makes Services answer. It leaves the machine's limits for connections alone."""
    arguments = [
        f"--kubeconfig={root}/private/kube-proxy.kubeconfig",
        f"--hostname-override={NAME}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={addresses.pods}",
        f"--healthz-bind-address={addresses.node}:10256",
        f"--metrics-bind-address={addresses.node}:10249",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
        "--iptables-min-sync-period=100ms",
    ]
    return Daemon(root / "bin/kube-proxy", arguments, root / "logs/kube-proxy.log")


def write_configuration(root: Path, addresses: Addresses, snapshotter: str) -> None:
    """Writes what the programs of a node read."""
    (root / "containerd.toml").write_text(_containerd_toml(root, snapshotter))
    (root / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet_configuration(root, addresses)))
    (root / "cni").mkdir(exist_ok=True)
    (root / "cni/10-seaway.conflist").write_text(json.dumps(_pod_network(root, addresses)))


def _containerd_toml(root: Path, snapshotter: str) -> str:
    return f"""\
version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"

[grpc]
address = "{socket(root)}"

[plugins."io.containerd.internal.v1.opt"]
path = "{root}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
stream_server_address = "127.0.0.1"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "{root}/containerd/state/runc"
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{root}/cni"
"""


def _kubelet_configuration(root: Path, addresses: Addresses) -> dict[str, object]:
    """See https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.node,
        "healthzBindAddress": addresses.node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(root / "private/kubelet-client.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{socket(root)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.GROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "clusterDomain": "cluster.local",
        "clusterDNS": [addresses.node],
        "podLogsDir": str(root / "logs/pods"),
        "volumePluginDir": str(root / "kubelet-plugins"),
        # A developer's disk is often nearly full, which is no reason to evict pods or to forget images that cannot be pulled again.
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
    }


def _pod_network(root: Path, addresses: Addresses) -> dict[str, object]:
    """See https://www.cni.dev/docs/spec/ and the plugins ptp, host-local and portmap."""
    addressing = {
        "type": "host-local",
        "dataDir": str(root / "cni/addresses"),
        "ranges": [[{"subnet": addresses.first_node_pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {
        "cniVersion": "0.4.0",
        "name": NETWORK,
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": addressing}],
    }

"""Seaway on a cluster, installed as a person installs it: images, keys, `kubectl apply -k`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.testing.kubernetes import KubectlError
from common.testing.kubernetes.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
PARTS = {"statefulset/nats": "seaway", "deployment/watcher": "seaway", "daemonset/nginx-config-renderer": "seaway-edge"}


@dataclass(frozen=True)
class Installed:
    """Seaway on a cluster."""

    cluster: Cluster
    overlay: Path
    parts: Mapping[str, str] = field(default_factory=lambda: PARTS)

    @property
    def address(self) -> str:
        """The node's address, where the edge answers on the usual ports."""
        return self.cluster.addresses.node

    def pods(self) -> list[dict[str, Any]]:
        """Every pod of Seaway."""
        found = [
            json.loads(self.cluster.kubectl("-n", each, "get", "pods", "-o", "json")) for each in sorted(set(self.parts.values()))
        ]
        return [pod for one in found for pod in one["items"]]

    def rolled_out(self) -> None:
        """Returns when every part is ready; raises KubectlError if one does not become so."""
        for part, namespace in self.parts.items():
            self.cluster.kubectl("-n", namespace, "rollout", "status", part, "--timeout=90s")

    @contextmanager
    def bus(self) -> Iterator[list[str]]:
        """Options by which the `seaway` command, as the operator on another machine, reaches the bus while the block runs."""
        kubectl = [str(self.cluster.root / "bin/kubectl"), "--kubeconfig", str(self.cluster.kubeconfig), "-n", "seaway"]
        with subprocess.Popen([*kubectl, "port-forward", "service/nats", ":4222"], stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                local = forward.stdout.readline().split()[2]  # Forwarding from 127.0.0.1:40123 -> 4222
                secrets = self.overlay.parents[1] / "secrets"
                yield ["--nats", f"nats://{local}", "--nkey", f"{secrets}/seaway.nkey", "--tls-ca", f"{secrets}/ca.crt"]
            finally:
                forward.terminate()

    def replica(self) -> list[dict[str, Any]]:
        """The objects that are on the bus."""
        with self.bus() as options:
            command = [str(Path(PYTHON).parent / "seaway"), "state", "-o", "json", *options]
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        items: list[dict[str, Any]] = json.loads(said.stdout)["items"]
        return items

    def logs(self) -> str:
        """What all containers say, and what the cluster says about them."""
        said = [self.cluster.kubectl("get", "pods", "-A", "-o", "wide")]
        for part, namespace in self.parts.items():
            said.append(self.cluster.kubectl("-n", namespace, "logs", part, "--all-containers", "--all-pods", "--tail=20"))
        return "\n".join(said)


def with_keys(directory: Path) -> Path:
    """A copy of deploy/ with keys of its own, so that nobody's keys are touched."""
    copy = directory / "deploy"
    shutil.copytree(
        ROOT / "deploy",
        copy,
        ignore=lambda _, names: [
            name for name in names if name.endswith((".nkey", ".key", ".crt", ".env")) and name != "seaway.env"
        ],
    )
    subprocess.run([PYTHON, str(ROOT / "scripts/nats-keys.py"), str(copy / "secrets")], check=True, capture_output=True)
    return copy


@contextmanager
def installed(cluster: Cluster, overlay: Path, parts: Mapping[str, str] = PARTS) -> Iterator[Installed]:
    """Seaway, of which every pod is ready, until the block ends. Skips the test where programs are missing; fails it with all logs.

    A Seaway that was there before is removed, since images of the same tag may have changed.
    """
    missing = [program for program in ("buildah", "debootstrap", "openssl") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"images and keys need {', '.join(missing)}: python3 scripts/setup.py images")
    load_images(cluster, overlay.parents[1] / "images")
    if "namespace/seaway" in cluster.kubectl("get", "namespaces", "-o", "name").split():
        remove(cluster, overlay)
    cluster.kubectl("apply", "-k", str(overlay))
    found = Installed(cluster, overlay, parts)
    try:
        found.rolled_out()
        yield found
    except KubectlError as error:
        pytest.fail(f"{error}\n{found.logs()}")
    finally:
        remove(cluster, overlay)


def load_images(cluster: Cluster, directory: Path) -> None:
    """Builds what changed since the last time, and gives the node all of it."""
    subprocess.run([PYTHON, str(ROOT / "scripts/images.py"), "--output", str(directory)], check=True)
    for archive in sorted(directory.glob("*.tar")):
        cluster.load_archive(archive)


def remove(cluster: Cluster, overlay: Path) -> None:
    """`kubectl delete -k`, until all is gone: the ports of the node are free again."""
    cluster.kubectl("delete", "-k", str(overlay), "--ignore-not-found", "--timeout=120s")

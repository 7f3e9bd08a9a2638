"""A whole Kubernetes on this machine: one node with real pods, made in seconds and removed without a trace.

    cluster = Cluster(Path(".run/cluster"))
    cluster.up()        # does nothing if all of it runs, mends what does not
    cluster.kubectl("get", "nodes")
    cluster.down()

Everything is below one directory and in one control group; a machine has one such cluster at a time. Each program of Kubernetes has an
identity of its own and the built-in role for it, the kubelet asks the API server who may call it, and only root reads the secrets.
"""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from common.testing.kubernetes import cgroups, commands, images, machine, node
from common.testing.kubernetes.binary import PROGRAMS, kubernetes_programs
from common.testing.kubernetes.control_plane import KubectlError
from common.testing.kubernetes.credentials import identity, kubeconfig, signing_key, token_file, tokens_in, write_secret
from common.testing.kubernetes.daemons import Daemon

API_PORT = 6443
READY_WITHIN = 120.0
COMMAND_DEADLINE = 300.0
CLAIM_DEADLINE = 900.0  # a first `up` builds

_USERS = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager",),
    "kube-proxy": ("system:kube-proxy",),
    "kube-scheduler": ("system:kube-scheduler",),
    "kubelet": (f"system:node:{node.NAME}", "system:nodes"),
}
_CLAIM = "\0seaway-cluster"


class ClusterError(Exception):
    """Why there is no cluster, in a sentence that says what to do."""


class Cluster:
    """The cluster of one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.kubeconfig = self.root / "kubeconfig"
        self._files = commands.ControlPlaneFiles(self.root / "private")
        self._began = time.monotonic()
        self._started: list[Daemon] = []

    @property
    def url(self) -> str:
        """Where the API server answers, for this machine and for pods."""
        return f"https://{self.addresses.node}:{API_PORT}"

    @property
    def addresses(self) -> machine.Addresses:
        """The cluster's part of the address space. Raises ClusterError before the first `up`."""
        before = machine.recall(self.root / "machine.json")
        if before is None:
            raise ClusterError(f"there is no cluster in {self.root}; make one with: python -m common.testing.kubernetes up")
        return before.addresses

    def up(self) -> None:
        """Makes the cluster run. Raises ClusterError."""
        self._check()
        with self._alone():
            if self.runs():
                self._say(f"runs already: kubectl --kubeconfig {self.kubeconfig}")
                return
            programs = kubernetes_programs()
            self._began = time.monotonic()
            self._prepare(programs)
            self._launch()
            self._say(f"ready: kubectl --kubeconfig {self.kubeconfig}")

    def down(self) -> None:
        """Removes the cluster and everything that it made; does nothing if there is none. Raises ClusterError."""
        self._check()
        with self._alone():
            if not self.root.exists() and machine.owner() is None:
                self._say("there is none")
                return
            cgroups.kill()
            cgroups.remove()
            machine.clear(self.root)
            machine.restore(machine.recall(self.root / "machine.json"))
            shutil.rmtree(self.root, ignore_errors=True)
            self._say("removed")

    def runs(self) -> bool:
        """Whether every program runs and the node is ready."""
        return self.root.exists() and all(daemon.pid for daemon in self.daemons()) and self._node_is_ready()

    def daemons(self) -> tuple[Daemon, ...]:
        """The programs, in the order in which they start."""
        root, files, addresses = self.root, self._files, self.addresses
        etcd_url = f"http://{addresses.etcd}:2379"
        secure = [
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={files.root}/kubelet-client.crt",
            f"--kubelet-client-key={files.root}/kubelet-client.key",
        ]
        me, services = addresses.node, addresses.services
        arguments = {
            "etcd": commands.etcd(files, etcd_url, f"http://{addresses.etcd}:2380"),
            "kube-apiserver": commands.apiserver(
                files, address=me, port=API_PORT, etcd_url=etcd_url, service_range=services, more=secure
            ),
            "kube-controller-manager": commands.controller_manager(
                files, address=me, pod_range=addresses.pods, service_range=services
            ),
            "kube-scheduler": commands.scheduler(files, address=me),
            # It reads what kube-proxy reads.
            "cluster-dns": [f"-listen={me}:53", f"-kubeconfig={files.root}/kube-proxy.kubeconfig"],
        }
        plain = {name: Daemon(root / "bin" / name, given, root / f"logs/{name}.log") for name, given in arguments.items()}
        return (
            plain["etcd"],
            plain["kube-apiserver"],
            node.containerd(root),
            plain["kube-controller-manager"],
            plain["kube-scheduler"],
            node.kubelet(root, addresses),
            node.kube_proxy(root, addresses),
            plain["cluster-dns"],
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl writes, as the admin. Raises KubectlError if it fails."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.root / "cache"),
        }
        done = _run([str(self.root / "bin/kubectl"), *arguments], stdin=stdin, environment=environment)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def load_archive(self, archive: Path) -> None:
        """Gives the node the images of a docker-archive or OCI archive. Raises ClusterError."""
        snapshotter = (self.root / "snapshotter").read_text()
        command = ["ctr", "--address", str(node.socket(self.root)), "--namespace", "k8s.io"]
        done = _run([*command, "images", "import", "--snapshotter", snapshotter, str(archive)])
        if done.returncode != 0:
            raise ClusterError(f"{archive} cannot be imported: {done.stderr.strip()}")

    def load_image(self, image: images.Image) -> None:
        """Gives the node an image that is made of files."""
        with tempfile.TemporaryDirectory(prefix="seaway-image-") as directory:
            archive = Path(directory) / "image.tar"
            images.write_archive(image, archive)
            self.load_archive(archive)

    def _prepare(self, programs: Path) -> None:
        """Makes all that the programs find when they start. What is there already stays."""
        for name in ("bin", "logs", "private"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "private").chmod(0o700)
        addresses = machine.remember(self.root / "machine.json").addresses
        if not cgroups.processes():
            machine.clear(self.root)  # of a crash, or of the time before a reboot
        cgroups.create()
        machine.connect(addresses, self.root)
        for name in PROGRAMS:
            _link(self.root / "bin" / name, programs / name)
        _link(self.root / "bin/containerd", Path(shutil.which("containerd") or "/usr/bin/containerd"))
        self._write_credentials()
        snapshotter = "overlayfs" if _overlay_works(self.root) else "native"
        (self.root / "snapshotter").write_text(snapshotter)
        node.write_configuration(self.root, addresses, snapshotter)

    def _write_credentials(self) -> None:
        if not self._files.tokens.exists():
            write_secret(self._files.tokens, token_file(identity(*user) for user in _USERS.values()))
        if not self._files.signing_key.exists():
            write_secret(self._files.signing_key, signing_key())
        certificate, key = self._files.root / "kubelet-client.crt", self._files.root / "kubelet-client.key"
        if not certificate.exists():
            # The API server shows this certificate to the kubelet, which trusts exactly this one.
            curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
            subject = ["-subj", "/O=system:masters/CN=kube-apiserver", "-addext", "extendedKeyUsage=clientAuth"]
            done = _run(["openssl", "req", "-x509", *curve, *subject, "-keyout", str(key), "-out", str(certificate)])
            if done.returncode != 0:
                raise ClusterError(f"openssl made no certificate: {done.stderr.strip()}")

    def _launch(self) -> None:
        self._started = []
        etcd, apiserver, containerd, *others = self.daemons()
        self._start(etcd, apiserver, containerd)
        self._wait("containerd", lambda: _run(["ctr", "--address", str(node.socket(self.root)), "version"]).returncode == 0)
        for image in (images.pause_image(), images.busybox_image(), images.echo_image()):
            self.load_image(image)
        self._say("containerd runs and has the images")
        self._wait("the API server", lambda: self._get("/readyz")[0] == 200)
        self._say(f"the API server answers on {self.url}")
        self._write_kubeconfigs()
        self._start(*others)
        self._wait("the node", self._node_is_ready)
        self._say("the node is ready")
        self._wait("the first ServiceAccount", lambda: self._get("/api/v1/namespaces/default/serviceaccounts/default")[0] == 200)
        self._wait("kube-proxy", lambda: _listens(self.addresses.node, 10256))
        self._wait("names", lambda: not _can_bind(self.addresses.node, 53))

    def _start(self, *daemons: Daemon) -> None:
        for daemon in daemons:
            if daemon.pid is None:
                daemon.start()
        for daemon in daemons:
            self._wait(daemon.name, partial(_runs, daemon), within=5, blame=[daemon])
            self._started.append(daemon)

    def _wait(
        self, what: str, condition: Callable[[], bool], *, within: float = READY_WITHIN, blame: Sequence[Daemon] = ()
    ) -> None:
        """Waits for `condition`. Raises ClusterError if it takes too long, or if a program that it may depend on ended."""
        deadline = time.monotonic() + within
        while not condition():
            ended = next((daemon for daemon in self._started if daemon.pid is None), None)
            if ended is not None:
                raise ClusterError(f"{ended.name} ended; the end of {ended.log}:\n{ended.last_words()}")
            if time.monotonic() > deadline:
                words = "".join(f"\n{daemon.last_words()}" for daemon in blame)
                raise ClusterError(f"{what} did not become ready within {within:.0f} s; see {self.root}/logs{words}")
            time.sleep(0.05)

    def _write_kubeconfigs(self) -> None:
        authority = self._files.authority.read_text()
        tokens = tokens_in(self._files.tokens.read_text())
        for name, (user, *_) in _USERS.items():
            path = self.kubeconfig if name == "admin" else self._files.root / f"{name}.kubeconfig"
            write_secret(path, kubeconfig(self.url, authority, tokens[user]))

    def _node_is_ready(self) -> bool:
        status, found = self._get(f"/api/v1/nodes/{node.NAME}")
        conditions = found["status"]["conditions"] if status == 200 else ()
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _get(self, path: str) -> tuple[int, Any]:
        """Status and decoded body of one request by the admin; (0, None) if nobody answers."""
        if not self._files.find_authority():
            return 0, None
        token = tokens_in(self._files.tokens.read_text())["admin"]
        context = ssl.create_default_context(cafile=str(self._files.authority))
        connection = http.client.HTTPSConnection(self.addresses.node, API_PORT, timeout=5, context=context)
        with closing(connection):
            try:
                connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                return 0, None
        return response.status, json.loads(body) if body.startswith(b"{") else body

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise ClusterError(
                "a cluster needs root, for containers and their network: use sudo, or a cluster of your own by KUBECONFIG="
            )
        missing = node.missing_packages()
        if missing:
            raise ClusterError(
                f"missing Debian packages: {' '.join(missing)}; install them with: apt-get install {' '.join(missing)}"
            )
        owner = machine.owner()
        if owner not in {None, str(self.root)}:
            raise ClusterError(
                f"this machine has a cluster in {owner}; remove it with: python -m common.testing.kubernetes down --dir {owner}"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds a claim that the kernel takes back when this process ends, so that two callers do not meet."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as claim:
            self._began = time.monotonic()
            while True:
                try:
                    claim.bind(_CLAIM)
                    break
                except OSError:
                    if time.monotonic() - self._began > CLAIM_DEADLINE:
                        raise ClusterError(
                            f"another process has been making or removing a cluster for {CLAIM_DEADLINE:.0f} s"
                        ) from None
                    time.sleep(0.2)
            self._began = time.monotonic()
            yield

    def _say(self, sentence: str) -> None:
        print(f"cluster: {sentence} ({time.monotonic() - self._began:.1f} s)", file=sys.stderr, flush=True)


def _runs(daemon: Daemon) -> bool:
    return daemon.pid is not None


def _run(
    command: Sequence[str], *, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, check=False, timeout=COMMAND_DEADLINE
    )


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _overlay_works(root: Path) -> bool:
    """Whether the kernel can put layers over each other here; where it cannot, every container has a copy of its image."""
    with tempfile.TemporaryDirectory(dir=root) as directory:
        parts = {name: Path(directory) / name for name in ("lower", "upper", "work", "merged")}
        for part in parts.values():
            part.mkdir()
        options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
        mounted = _run(["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]).returncode == 0
        if mounted:
            _run(["umount", str(parts["merged"])])
    return mounted


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def _can_bind(address: str, port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True

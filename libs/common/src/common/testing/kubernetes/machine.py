"""What a cluster changes on the machine, and how all of it is undone.

Before the first change, the machine's own values are written down (`Machine`); afterwards they are put back. What programs of Kubernetes
leave behind is found by its name or its place: mounts below the cluster's directory, with them the network namespaces of pods, links to
pods, sockets of shims, notes of the network plugins, and iptables chains that begin with KUBE- or SEAWAY-.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

BRIDGE = "seaway0"
NETWORK = "seaway"  # of the pods, as its plugins call it

_DEADLINE = 30.0
_SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
# Directories outside of its own in which programs of the cluster make files, because they cannot be told otherwise; inner ones first.
_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOGS = Path("/var/log/containers")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
_SHIM_SOCKETS = Path("/run/containerd/s")
_DIRECTORIES = tuple(
    str(path)
    for inner in (_CNI_RESULTS, _CONTAINER_LOGS, _DEVICE_PLUGINS, _SHIM_SOCKETS)
    for path in (inner, inner.parent)
    if path != Path("/var/log")
)
_FORWARD = "SEAWAY-FORWARD"
_OUR_CHAINS = ("KUBE-", "SEAWAY-")


@dataclass(frozen=True, slots=True)
class Addresses:
    """A /16 of 10.0.0.0/8 for the cluster alone."""

    second: int  # of the four numbers

    @property
    def block(self) -> str:
        """All of it."""
        return f"10.{self.second}.0.0/16"

    @property
    def node(self) -> str:
        """The machine, as the cluster knows it: on a bridge of its own, so every port of it is free."""
        return f"10.{self.second}.0.1"

    @property
    def services(self) -> str:
        """For Services."""
        return f"10.{self.second}.64.0/18"

    @property
    def pods(self) -> str:
        """For all nodes' pods."""
        return f"10.{self.second}.128.0/17"

    @property
    def first_node_pods(self) -> str:
        """What the controller-manager gives to the first node."""
        return f"10.{self.second}.128.0/24"

    @property
    def pod_gateway(self) -> str:
        """The machine, at its end of every link to a pod."""
        return f"10.{self.second}.128.1"

    @property
    def etcd(self) -> str:
        """Only this machine reaches it."""
        return f"127.0.{self.second}.1"


@dataclass(frozen=True, slots=True)
class Machine:
    """How the machine was before the cluster came, and which addresses it got."""

    second: int
    sysctls: dict[str, str]
    absent: list[str]  # directories that were not there

    @property
    def addresses(self) -> Addresses:
        """The cluster's."""
        return Addresses(self.second)


def remember(path: Path) -> Machine:
    """The machine as it was before the first `up`: from `path`, where it is written if it is not there yet."""
    known = recall(path)
    if known is not None:
        return known
    sysctls = {name: _sysctl(name).read_text().strip() for name in _SYSCTLS if _sysctl(name).exists()}
    machine = Machine(_free_block(), sysctls, [path for path in _DIRECTORIES if not Path(path).exists()])
    path.write_text(json.dumps(asdict(machine)))
    return machine


def recall(path: Path) -> Machine | None:
    """What `remember` wrote, if it is still there."""
    return Machine(**json.loads(path.read_text())) if path.exists() else None


def owner() -> str | None:
    """The directory of the cluster that this machine runs, or ran until it crashed."""
    links = json.loads(_run("ip", "-json", "link", "show", "type", "bridge") or "[]")
    return next((str(link.get("ifalias", "")) for link in links if link["ifname"] == BRIDGE), None)


def connect(addresses: Addresses, directory: Path) -> None:
    """Gives the machine the node's address, lets pods talk through it, and says whose cluster it is."""
    if owner() is None:
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "link", "set", BRIDGE, "alias", str(directory), "up")
        # A route for the whole block, so that Services are reached on machines without a default route too.
        _run("ip", "address", "add", f"{addresses.node}/16", "dev", BRIDGE)
    _sysctl("net/ipv4/ip_forward").write_text("1")
    _remove_chains("filter", "iptables", only=_FORWARD)
    rules = [f"-A {_FORWARD} {side} {addresses.block} -j ACCEPT" for side in ("-s", "-d")]
    _restore("iptables", "filter", [f":{_FORWARD} - [0:0]", f"-I FORWARD -j {_FORWARD}", *rules])


def clear(directory: Path) -> None:
    """Removes what dead processes of the cluster left: mounts, with them the pods' namespaces, and files outside. Its data stays."""
    for file in [*_shim_sockets(directory / "containerd/state"), *_cni_results(), *_container_logs(directory)]:
        file.unlink(missing_ok=True)
    for point in reversed(_mounts(directory)):
        _run("umount", "--lazy", str(point))
    shutil.rmtree(directory / "containerd/state", ignore_errors=True)
    shutil.rmtree(directory / "cni/addresses", ignore_errors=True)


def restore(machine: Machine | None) -> None:
    """Makes the machine as it was, as far as that is known."""
    if owner() is not None:
        _run("ip", "link", "delete", BRIDGE)
    for program in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            _remove_chains(table, program)
    if machine is None:
        return
    for link in _pod_links(machine.addresses):
        _run("ip", "link", "delete", link)
    for name, value in machine.sysctls.items():
        _sysctl(name).write_text(value)
    if str(_DEVICE_PLUGINS) in machine.absent:
        shutil.rmtree(_DEVICE_PLUGINS, ignore_errors=True)
    for path in machine.absent:
        with suppress(OSError):  # somebody else uses it by now
            Path(path).rmdir()


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def _free_block() -> int:
    routes = json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    taken = {route["dst"].split("/")[0].split(".")[1] for route in routes if route["dst"].startswith("10.")}
    return next(second for second in range(249, 199, -1) if str(second) not in taken)


def _mounts(directory: Path) -> list[Path]:
    """Mount points below `directory`, in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4])) for line in lines]
    return [point for point in points if point.is_relative_to(directory)]


def _shim_sockets(state: Path) -> Iterable[Path]:
    """Shims listen in one place, wherever containerd's own state is; each says in its bundle where."""
    bundles = state / "io.containerd.runtime.v2.task"
    for note in [*bundles.glob("*/*/address"), *bundles.glob("*/*/bootstrap.json")]:
        yield from (Path(found) for found in re.findall(rf"unix://({_SHIM_SOCKETS}/\w+)", note.read_text()))


def _cni_results() -> Iterable[Path]:
    """What the plugins wrote down for our network, and for the loopback of the same pods."""
    for result in _CNI_RESULTS.glob(f"{NETWORK}-*-eth0"):
        yield result
        yield _CNI_RESULTS / f"cni-loopback-{result.name.split('-')[1]}-lo"


def _container_logs(directory: Path) -> Iterable[Path]:
    """The kubelet's links to logs that are in the cluster's directory."""
    logs = _CONTAINER_LOGS.iterdir() if _CONTAINER_LOGS.exists() else ()
    return [log for log in logs if log.is_symlink() and log.readlink().is_relative_to(directory)]


def _pod_links(addresses: Addresses) -> Iterable[str]:
    """The machine's ends of links to pods. They go with the pods' namespaces too, but in the kernel's own time."""
    links = json.loads(_run("ip", "-json", "-4", "address", "show") or "[]")
    return [link["ifname"] for link in links if any(at["local"] == addresses.pod_gateway for at in link["addr_info"])]


def _remove_chains(table: str, program: str, only: str = "") -> None:
    """Removes our chains, and every rule that leads to one."""
    if shutil.which(program) is None:
        return
    wanted = (only,) if only else _OUR_CHAINS
    lines = _run(f"{program}-save", "-t", table).splitlines()
    chains = [line[1:].split()[0] for line in lines if line.startswith(":") and line[1:].startswith(wanted)]
    outside = [line for line in lines if line.startswith("-A ") and not line[3:].startswith(wanted)]
    calls = ["-D" + line[2:] for line in outside if re.search(r" -[jg] (" + "|".join(wanted) + ")", line)]
    if chains:
        _restore(program, table, [*calls, *(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains)])


def _restore(program: str, table: str, lines: Iterable[str]) -> None:
    _run(f"{program}-restore", "--noflush", "--wait", stdin="\n".join([f"*{table}", *lines, "COMMIT", ""]))


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=_DEADLINE)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout

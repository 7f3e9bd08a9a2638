"""What a cluster might leave on a machine."""

import json
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

DIRECTORIES = ("/opt", "/run", "/run/netns", "/var/lib", "/var/lib/cni", "/var/log", "/usr/libexec")
SHARED = "/tmp"  # noqa: S108 everybody writes there, so only what is named for a program of the cluster counts
SYSCTLS = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
)
PROGRAMS = ("containerd", "etcd", "kube", "cluster-dns", "runc")
NAMESPACES = Path("/run/netns")  # those of pods have names of their own (CNI); others are somebody else's
OTHERS = {NAMESPACES, Path("/var/lib/containers")}  # `ip netns` and buildah make them on a machine that never had them


@dataclass(frozen=True, slots=True)
class Traces:
    """How the machine looks, as far as a cluster could change it."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]
    groups: frozenset[str]
    files: frozenset[str]
    sysctls: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        """The machine as it is."""
        return cls(
            processes=frozenset(_processes()),
            mounts=frozenset(_mounts()),
            links=frozenset(link["ifname"] for link in json.loads(_output("ip", "-json", "link"))),
            rules=frozenset(_rules("iptables-save") + _rules("ip6tables-save")),
            groups=frozenset(str(path) for path in Path("/sys/fs/cgroup").glob("**/seaway*")),
            files=frozenset(_files()),
            sysctls=frozenset(f"{name}={(Path('/proc/sys') / name).read_text()}" for name in SYSCTLS),
        )

    def new_in(self, later: Self) -> dict[str, list[str]]:
        """What came since."""
        came = {kind.name: sorted(getattr(later, kind.name) - getattr(self, kind.name)) for kind in fields(self)}
        return {kind: things for kind, things in came.items() if things}


def _mounts() -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if _could_be_theirs(Path(point))]


def _files() -> list[str]:
    theirs = [path for path in Path(SHARED).glob("*") if path.name.startswith(PROGRAMS)]
    below = [path for directory in DIRECTORIES for path in Path(directory).glob("*") if _could_be_theirs(path)]
    return [str(path) for path in (*theirs, *below)]


def _could_be_theirs(path: Path) -> bool:
    return path not in OTHERS and (path.parent != NAMESPACES or path.name.startswith("cni-"))


def _processes() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
        except OSError:
            continue
        if name.startswith(PROGRAMS):
            found.append(f"{process.name} {name}")
    return found


def _rules(program: str) -> list[str]:
    """Without the built-in chains, which have a policy and no way to be removed."""
    lines = _output(program).splitlines()
    return [line for line in lines if line.startswith("-A") or (line.startswith(":") and line.split()[1] == "-")]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

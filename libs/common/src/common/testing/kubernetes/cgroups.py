"""One control group that holds every process of the cluster: its daemons, the containers' shims, and all containers.

So whatever happened, "everything of the cluster" is a question to the kernel and not to a list of ours. Works on cgroup v1, on v2, and on
machines that mount both (https://docs.kernel.org/admin-guide/cgroup-v1/, https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GROUP = "seaway"  # the kubelet puts all pods below it

_DAEMONS = "daemons"
_DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A tree of groups, as it is mounted."""

    root: Path
    unified: bool

    @property
    def group(self) -> Path:
        """The cluster's group in this tree."""
        return self.root / GROUP


def hierarchies() -> tuple[Hierarchy, ...]:
    """All trees of this machine."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return tuple(Hierarchy(Path(mount[1]), mount[2] == "cgroup2") for mount in mounts if mount[2] in {"cgroup", "cgroup2"})


def create() -> None:
    """Makes the group in every tree, with all controllers at hand."""
    for tree in hierarchies():
        tree.group.mkdir(exist_ok=True)
        if tree.unified:
            _delegate(tree.root)
            _delegate(tree.group)
        else:
            _inherit_cpuset(tree)
        (tree.group / _DAEMONS).mkdir(exist_ok=True)
        if not tree.unified:
            _inherit_cpuset(Hierarchy(tree.group, unified=False), _DAEMONS)


def entrances() -> tuple[Path, ...]:
    """The files into which a daemon writes itself to be in the group."""
    return tuple(tree.group / _DAEMONS / "cgroup.procs" for tree in hierarchies())


def processes() -> frozenset[int]:
    """Every process in the group or below it."""
    return frozenset(pid for tree in hierarchies() for group in _groups(tree) for pid in _processes(group))


def kill() -> None:
    """Kills every process in the group and waits until they are gone. Raises TimeoutError."""
    deadline = time.monotonic() + _DEADLINE
    while found := processes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(found)} did not die of SIGKILL within {_DEADLINE:.0f} s")
        for pid in found:
            _kill(pid)
        time.sleep(0.02)


def remove() -> None:
    """Removes the group, which has no processes any more, from every tree. Raises OSError."""
    for tree in hierarchies():
        for group in sorted(_groups(tree), key=lambda group: len(group.parts), reverse=True):
            _remove(group)


def _remove(group: Path) -> None:
    """The kernel needs a moment after the last process before it lets go of a group."""
    deadline = time.monotonic() + _DEADLINE
    while True:
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _groups(tree: Hierarchy) -> Iterator[Path]:
    for directory, _, _ in os.walk(tree.group):
        yield Path(directory)


def _processes(group: Path) -> Iterator[int]:
    try:
        yield from (int(line) for line in (group / "cgroup.procs").read_text().split())
    except OSError:
        return  # the group was removed, or is one of threads


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _delegate(group: Path) -> None:
    """Lets the children of a v2 group have every controller. One that cannot be had is the kubelet's to miss, by name."""
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            continue


def _inherit_cpuset(tree: Hierarchy, child: str = GROUP) -> None:
    """A v1 cpuset starts empty, and nothing can run in an empty one."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        source = tree.root / name
        if source.exists() and not (tree.root / child / name).read_text().strip():
            (tree.root / child / name).write_text(source.read_text())

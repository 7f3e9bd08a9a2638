"""What the processes of an edge hold in memory, and how long they have kept a processor busy."""

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Resident:
    """A process: its command line, and its resident memory in MiB, what it shares with others included."""

    pid: int
    command: str
    mib: float


def family(pid: int) -> list[Resident]:
    """A process and all that it started."""
    found = []
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            found.append(_resident(one))
            waiting += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except OSError:  # it ended meanwhile
            continue
    return found


def _resident(pid: int) -> Resident:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)
    return Resident(pid, command, kib * 1024 / MIB)


def largest(pid: int, *words: str) -> float:
    """The memory of the largest process of a family whose command line has all of `words`."""
    return max((one.mib for one in family(pid) if all(word in one.command for word in words)), default=0.0)


def processes(pid: int, *words: str) -> frozenset[int]:
    """The processes of a family whose command line has all of `words`."""
    return frozenset(one.pid for one in family(pid) if all(word in one.command for word in words))


def at_work(pid: int) -> float:
    """As `processor`, of nginx's workers; of the whole family where there are none."""
    return sum(map(processor, processes(pid, "nginx: worker process") or {pid}))


def processor(pid: int) -> float:
    """Seconds for which a process and all that it started have kept a processor busy (proc_pid_stat(5), utime and stime)."""
    seconds, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            waiting += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except OSError:  # it ended meanwhile
            continue
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds

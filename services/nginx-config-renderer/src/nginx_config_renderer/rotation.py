"""Rotation: what becomes of logs that grow, as a pure function of what is in their directory.

    access.log                       nginx writes here
    access.log-20261124T021500Z      gave way to it then; somebody may still write to it for a moment
    access.log-20261123T021500Z.gz   nobody does

A log gives way when it is large or old. Whatever gave way is compressed once nobody has written to it for a while, and the oldest are
removed when there are too many, or when all logs together take more than their budget.
"""

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

LOGS: Final = ("access.log", "error.log")
COMPRESSED: Final = ".gz"
QUIET: Final = 30.0  # seconds without a line, after which nobody has it open to write
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_ROTATED: Final = re.compile(rf"({'|'.join(map(re.escape, LOGS))})-(\d{{8}}T\d{{6}}Z)(\.gz)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log gives way: at `size` bytes, or after `every` seconds. `keep` of each are kept, all within `budget` bytes."""

    size: int
    every: float
    keep: int
    budget: int


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """One file: bytes, and seconds since a line was written."""

    name: str
    size: int
    silent: float


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with one file. `to` is the name that it gets."""

    do: Literal["rotate", "compress", "remove"]
    name: str
    to: str = ""


def steps(files: Iterable[LogFile], begun: dict[str, dt.datetime], now: dt.datetime, rotation: Rotation) -> tuple[Step, ...]:
    """What is to be done, in order. `begun` says since when each log is written; one that is not there is not old."""
    there = sorted(files)
    names = {file.name for file in there}
    gone = _superfluous(there, rotation)
    found = [Step("remove", name) for name in gone]
    for file in there:
        if file.name in LOGS and file.size and _is_due(file, begun.get(file.name, now), now, rotation):
            name = f"{file.name}-{now.strftime(_STAMP)}"
            if not {name, name + COMPRESSED} & names:
                found.append(Step("rotate", file.name, name))
    found += [
        Step("compress", file.name, file.name + COMPRESSED)
        for file in there
        if _is_rotated(file) and not file.name.endswith(COMPRESSED) and file.silent >= QUIET and file.name not in gone
    ]
    return tuple(found)


def rotated_at(names: Iterable[str]) -> dict[str, dt.datetime]:
    """When each log gave way last."""
    found: dict[str, dt.datetime] = {}
    for match in filter(None, map(_ROTATED.fullmatch, names)):
        when = dt.datetime.strptime(match[2], _STAMP).replace(tzinfo=dt.UTC)
        found[match[1]] = max(when, found.get(match[1], when))
    return found


def is_log(name: str) -> bool:
    """Whether a file of that name is ours to look at."""
    return name in LOGS or _ROTATED.fullmatch(name) is not None


def _is_due(file: LogFile, begun: dt.datetime, now: dt.datetime, rotation: Rotation) -> bool:
    return file.size >= rotation.size or (now - begun).total_seconds() >= rotation.every


def _is_rotated(file: LogFile) -> bool:
    return file.name not in LOGS


def _superfluous(there: Sequence[LogFile], rotation: Rotation) -> list[str]:
    """Rotated files that are too many, then the oldest of any log until the rest fits."""
    rotated = sorted((file for file in there if _is_rotated(file)), key=lambda file: file.name.partition("-")[2])
    gone = []
    for log in LOGS:
        of_it = [file for file in rotated if file.name.startswith(f"{log}-")]
        gone += of_it[: max(0, len(of_it) - rotation.keep)]
    left = sum(file.size for file in there) - sum(file.size for file in gone)
    for file in rotated:
        if left <= rotation.budget:
            break
        if file not in gone:
            gone.append(file)
            left -= file.size
    return sorted(file.name for file in gone)

"""A folder of manifests as a source, in place of an API server.

The kernel tells of changes within milliseconds; besides, the folder is looked through once a second, so nothing depends on being told.
Each look yields the whole state: what a file defined before it broke stays in force until the file is mended.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from watchfiles import awatch

from common.contracts.objects import MODELS, Projection
from common.contracts.problems import Problem
from common.contracts.refs import ResourceVersion
from common.manifests import SUFFIXES, is_hidden
from common.runtime.app import Fatal
from watcher.manifests import Broken, File, merge, parse, problem
from watcher.model import Faults, Listed, Observation
from watcher.office import Source, Sources
from watcher.settings import Settings

QUIET: Final = 10  # milliseconds without a change, after which a burst of changes counts as over
LONGEST: Final = 40  # milliseconds after which a burst is looked at although it goes on
LOOK: Final = 1000  # milliseconds between looks that nobody asked for

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was when it was read. `good` is its last version that could be used."""

    signature: tuple[int, int, int]
    good: File | None
    problem: Problem | None


def folder(settings: Settings) -> Sources:
    """The manifests of a folder. Raises Fatal if there is no such folder."""
    directory = settings.manifests
    if directory is None or not directory.is_dir():
        raise Fatal(f"--manifests {directory}: there is no such folder; make it, or name one that holds manifests")
    wanted = set(settings.resources)
    models = tuple(model for model in MODELS if str(model.resource) in wanted)

    def sources() -> Sequence[Source]:
        return [Folder(directory, models)]

    return sources


class Folder:
    """The manifests below a directory. Hidden files and folders are not looked at."""

    def __init__(self, directory: Path, models: tuple[type[Projection], ...]) -> None:
        self._directory = directory
        self._models = models
        self._seen: dict[str, _Seen] = {}

    @property
    def trouble(self) -> str | None:
        """Nothing but what files are told of one by one."""
        return None

    async def observe(self) -> AsyncGenerator[Observation]:
        """Everything now, and everything again after each change. Never ends by itself; raises OSError if the folder is gone."""
        if not self._directory.is_dir():
            raise NotADirectoryError(f"{self._directory} is no folder; name one that holds manifests")
        for observation in await self._look(first=True):
            yield observation
        watch = awatch(self._directory, debounce=LONGEST, step=QUIET, rust_timeout=LOOK, yield_on_timeout=True)
        async for _ in watch:
            for observation in await self._look():
                yield observation

    async def _look(self, *, first: bool = False) -> tuple[Observation, ...]:
        """What the folder holds, if it is anything else than at the last look."""
        seen = await asyncio.to_thread(_read, self._directory, self._seen)
        if seen == self._seen and not first:
            return ()
        self._seen = seen
        files = {path: file.good for path, file in seen.items() if file.good is not None}
        objects, clashes = merge(files)
        broken = [file.problem for file in seen.values() if file.problem is not None]
        complete = all(file.good is not None for file in seen.values())
        log.info(
            "manifests.read",
            files=len(seen),
            objects=len(objects),
            broken=len(broken),
            ignored=sum(f.ignored for f in files.values()),
        )
        listings = (
            Listed(model, [found.raw for found in objects.values() if found.model is model], str(time.time_ns()), complete=complete)
            for model in self._models
        )
        return (*listings, Faults(tuple(sorted([*broken, *clashes]))))


def _read(directory: Path, before: Mapping[str, _Seen]) -> dict[str, _Seen]:
    seen = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory)
        if path.suffix not in SUFFIXES or is_hidden(name.parts) or not path.is_file():
            continue
        one = _read_file(path, str(name), before.get(str(name)))
        if one is not None:
            seen[str(name)] = one
    return seen


def _read_file(path: Path, name: str, before: _Seen | None) -> _Seen | None:
    """A file as it is now; what was read before if it did not change; None if it is gone."""
    try:
        stat = path.stat()
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if before is not None and before.signature == signature:
            return before
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return _Seen((0, 0, 0), before.good if before else None, problem(name, 1, f"cannot be read: {error}"))
    parsed = parse(name, text, ResourceVersion(str(time.time_ns())))
    if isinstance(parsed, Broken):
        return _Seen(signature, before.good if before else None, parsed.problem)
    return _Seen(signature, parsed, None)

"""Stream files: makes a directory hold what nginx's program reads for each connection (see `streams.py`).

The files are state and journal in one: an nginx that starts while its renderer is away reads them as they are, and so does one whose bus
and API server are gone. Nothing is written or taken away before what should be there is known to be complete. A disk that takes no more is
told, and tried again.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

import structlog

from common.backoff import Backoff
from common.tries import Tries
from nginx_config_renderer import metrics

BACKOFF: Final = Backoff(first=0.05, most=5, factor=2, jitter=0.5)
FOLDERS: Final = ("ports", "hosts")
_AT_ONCE: Final = 100  # files between two looks at what else there is to do

log = structlog.get_logger(__name__)


class Wants(Protocol):
    """What the directory should hold, by names below it."""

    @property
    def files(self) -> Mapping[str, str]:
        """All files and their texts."""
        ...

    @property
    def unknown(self) -> Collection[str]:
        """Files of which nobody knows yet what they should hold: one that is there stays as it is."""
        ...


class StreamFiles:
    """The one writer of that directory. `wants` is what it should hold; it may change between any two awaits."""

    def __init__(self, directory: Path, wants: Wants) -> None:
        self.trouble: str | None = None
        self._directory = directory
        self._wants = wants
        self._dirty: set[str] = set()
        self._released = False
        self._compared = False
        self._wake = asyncio.Event()

    @property
    def settled(self) -> bool:
        """Whether the directory holds what it should."""
        return self._compared and not self._dirty

    def want(self, changed: Iterable[str]) -> None:
        """These files are different now. Nothing is written before `release`."""
        self._dirty.update(changed)
        self._wake.set()

    def release(self) -> None:
        """What should be there is known to be complete."""
        if not self._released:
            self._released = True
            self._wake.set()

    def hold(self) -> None:
        """It is not: the directory stays as it is until the next `release`."""
        self._released = self._compared = False

    async def run(self) -> None:
        """Writes until cancelled."""
        tries = Tries(BACKOFF)
        while True:
            try:
                await self._step()
                tries.done()
            except OSError as error:
                self._fail(error)
                await tries.pause()

    async def _step(self) -> None:
        if self._released and not self._compared:
            self._compare()
            self._compared = True
        elif self._released and self._dirty:
            await self._write()
        else:
            await self._wake.wait()
            self._wake.clear()

    def _compare(self) -> None:
        for folder in FOLDERS:
            (self._directory / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
        there = {f"{folder}/{path.name}" for folder in FOLDERS for path in (self._directory / folder).iterdir()}
        self._dirty = {name for name in there | self._wants.files.keys() if self._differs(name)}
        self.trouble = None
        if self._dirty:
            log.info("streams.compared", files=len(there), differing=len(self._dirty))

    async def _write(self) -> None:
        for name in sorted(self._dirty)[:_AT_ONCE]:
            text = self._wants.files.get(name)
            if text is None:
                (self._directory / name).unlink(missing_ok=True)
            elif self._differs(name):
                self._put(name, text)
            self._dirty.discard(name)
            metrics.WRITES.labels("streams").inc()
        self.trouble = None
        await asyncio.sleep(0)

    def _differs(self, name: str) -> bool:
        """Whether a file is not what it should be."""
        held = self._read(name)
        return held != self._wants.files.get(name) and (held is None or name not in self._wants.unknown)

    def _read(self, name: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return (self._directory / name).read_text()
        return None

    def _put(self, name: str, text: str) -> None:
        """A reader sees the old text or the new one. It need not outlive the machine, so nobody waits for the disk."""
        new = self._directory / ".new"
        new.write_text(text)
        new.chmod(0o644)
        new.replace(self._directory / name)

    def _fail(self, error: OSError) -> None:
        self.trouble = f"endpoints of streams cannot be written to {self._directory}: {error.strerror}; connections go to old ones"
        log.error("streams.failed", reason=self.trouble)

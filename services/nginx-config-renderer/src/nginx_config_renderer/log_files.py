"""Log files: keeps the directory of nginx's logs as `rotation.py` says.

A log is renamed, and nginx is told to open a new one (USR1): it writes each line to the old file or to the new one, so none is lost, and
none is copied. What nginx could not be told is told again. A disk that is full costs old logs first, and never an answer.
"""

import asyncio
import contextlib
import datetime as dt
import errno
import gzip
import os
import shutil
import stat
from pathlib import Path
from typing import Final

import structlog

from common.backoff import Backoff
from common.tries import Tries
from nginx_config_renderer import metrics
from nginx_config_renderer.admin import Absent, Admin, AdminError
from nginx_config_renderer.rotation import LOGS, LogFile, Rotation, Step, is_log, rotated_at, steps

EVERY: Final = 1.0
_BACKOFF: Final = Backoff(first=1, most=30, factor=2, jitter=0.5)
_DRAFT: Final = ".compressing"
_CHUNK: Final = 1024 * 1024

log = structlog.get_logger(__name__)


class LogFiles:
    """The one who renames and removes in that directory; nginx is the one who writes."""

    def __init__(self, directory: Path, rotation: Rotation, admin: Admin, *, every: float = EVERY) -> None:
        self._directory = directory
        self._rotation = rotation
        self._admin = admin
        self._every = every
        self._since = dt.datetime.now(dt.UTC)
        self._untold = True  # a renderer before us may have ended between the two

    async def run(self) -> None:
        """Looks after them until cancelled."""
        for draft in self._directory.glob(f"*{_DRAFT}"):
            draft.unlink()
        tries = Tries(_BACKOFF)
        while True:
            try:
                await self.look(dt.datetime.now(dt.UTC))
                tries.done()
            except (OSError, AdminError) as error:
                log.warning("logs.failed", directory=str(self._directory), reason=str(error))
                await tries.pause()
            await asyncio.sleep(self._every)

    async def look(self, now: dt.datetime) -> None:
        """Does what is due."""
        files = self._files(now)
        metrics.LOG_BYTES.set(sum(file.size for file in files))
        begun = dict.fromkeys(LOGS, self._since) | rotated_at(file.name for file in files)
        for step in steps(files, begun, now, self._rotation):
            await self._do(step)
        if self._untold:
            with contextlib.suppress(Absent):  # one that starts opens new ones by itself
                await self._admin.reopen()
                self._untold = False

    def _files(self, now: dt.datetime) -> list[LogFile]:
        found = []
        for path in self._directory.iterdir():
            if is_log(path.name):
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        found.append(LogFile(path.name, status.st_size, now.timestamp() - status.st_mtime))
        return found

    async def _do(self, step: Step) -> None:
        path = self._directory / step.name
        if step.do == "rotate":
            path.rename(self._directory / step.to)
            self._untold = True
            metrics.ROTATIONS.labels(step.name).inc()
            log.info("logs.rotated", file=step.to)
        elif step.do == "remove":
            path.unlink(missing_ok=True)
            log.info("logs.removed", file=step.name)
        else:
            await asyncio.to_thread(compress, path, self._directory / step.to)


def compress(source: Path, target: Path) -> None:
    """Replaces a file by a compressed one. One to which a line is written meanwhile stays, and is tried again.

    The directory is nginx's, and we may be root: what nginx put there instead of a file is not followed.
    """
    draft = source.with_name(source.name + _DRAFT)
    plain = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(plain, "rb") as lines:
        before = os.fstat(plain)
        if not stat.S_ISREG(before.st_mode) or before.st_nlink != 1:
            raise OSError(errno.EINVAL, f"{source} is no file of nginx's; remove it")
        packed = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, before.st_mode & 0o777)
        try:
            with os.fdopen(packed, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                shutil.copyfileobj(lines, stream, _CHUNK)
            if os.fstat(plain).st_size == before.st_size:
                draft.replace(target)
                source.unlink()
        finally:
            draft.unlink(missing_ok=True)

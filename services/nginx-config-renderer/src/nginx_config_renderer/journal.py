"""The journal: what was pushed to nginx, for the time when nginx starts and nobody is there to push it.

A file of JSON lines, one a push, written before the push itself; nginx's program reads it when its memory is empty. When it has become much
longer than what it amounts to, it is written anew. A crash may cut its last line off, and the reader takes that as its end.

It is not forced to the disk line by line: it must survive the death of a process, and after that of the machine the renderer pushes anew.
"""

import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Final

import structlog

from common.process import atomic_write
from nginx_config_renderer.plan import Entry, Write, chunks, to_bytes

_GROWTH: Final = 2
_SMALL: Final = 1024 * 1024  # bytes up to which nobody cares
_MODE: Final = 0o644  # nginx, which may be another user, reads it

log = structlog.get_logger(__name__)


class Journal:
    """The journal of one nginx. A disk that takes no more costs the journal, not the push."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._size = 0
        self._limit = 0
        self.trouble: str | None = None

    def rewrite(self, entries: Mapping[Entry, str], revision: int) -> None:
        """Makes the journal amount to `entries` at `revision`, in as few lines as can be."""
        self.close()
        writes = [Write(table, key, value) for (table, key), value in sorted(entries.items())]
        text = b"".join(line(chunk, revision) for chunk in chunks(writes))
        try:
            atomic_write(self._path, text, _MODE)
            self._file = FileIO(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), "ab")
        except OSError as error:
            self._fail(error)
            return
        self._size = len(text)
        self._limit = max(_SMALL, _GROWTH * len(text))
        self.trouble = None

    def append(self, writes: Sequence[Write], revision: int) -> bool:
        """Adds a push that leads to `revision`. Whether the journal can stay as it is; if not, `rewrite` it."""
        if self._file is None:
            return False
        text = line(writes, revision)
        try:
            self._file.write(text)
        except OSError as error:
            self._fail(error)
            return False
        self._size += len(text)
        return self._size <= self._limit

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _fail(self, error: OSError) -> None:
        self.close()
        self.trouble = f"the journal {self._path} cannot be written: {error.strerror}; nginx would restart with old routes"
        log.error("journal.failed", reason=self.trouble)


def line(writes: Sequence[Write], revision: int) -> bytes:
    """A push as a line of the journal."""
    return to_bytes(json.dumps({"to": revision, "writes": as_lists(writes)}, ensure_ascii=False, separators=(",", ":"))) + b"\n"


def as_lists(writes: Sequence[Write]) -> list[list[Any]]:
    """Writes as nginx's program reads them."""
    return [[write.table, write.key, write.value] for write in writes]

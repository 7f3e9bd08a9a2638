"""The journal: what was pushed to nginx, for the time when nginx starts and nobody is there to push it.

A file of lines, one a push: the MD5 of its JSON, and that. It is written before the push itself, and read by nginx's program when its
memory is empty. When it has become much longer than what it amounts to, it is written anew, whole or not at all; what nobody knows yet then
stays as it was. A crash may cut its last line off, and a disk may spoil any: a line that is not what its hash says is left out and told,
and all others count. A full disk may take a part of a line: that part is taken back, so that nothing is ever written behind it.

It is not forced to the disk line by line: it must survive the death of a process, and after that of the machine the renderer pushes anew.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Final

import structlog

from common.backoff import Backoff
from common.process import atomic_write, in_memory
from common.tries import Tries
from nginx_config_renderer.default_certificate import owner_of
from nginx_config_renderer.plan import PAIRS, Entry, Write, chunks, to_bytes

_GROWTH: Final = 2
_SMALL: Final = 1024 * 1024  # bytes up to which nobody cares
_MODE: Final = 0o644  # nginx, which may be another user, reads it
_PRIVATE: Final = 0o600
_AGAIN: Final = Backoff(first=1, most=30, factor=2, jitter=0.5)
SECRET: Final = frozenset({PAIRS})

log = structlog.get_logger(__name__)


class Journals:
    """The journal of one nginx: a file for what everybody may know, and one in memory for key pairs, or none for them."""

    def __init__(self, public: "Journal", secret: "Journal | None") -> None:
        self._public = public
        self._secret = secret
        self._all = (public,) if secret is None else (public, secret)

    @property
    def trouble(self) -> str | None:
        """Why a file is not what it should be, in a sentence."""
        return next((one.trouble for one in self._all if one.trouble), None)

    @property
    def due(self) -> bool:
        """Whether a file could not be written, and it is time to `rewrite` them."""
        return any(one.due for one in self._all)

    def rewrite(self, entries: Mapping[Entry, str], revision: int, unknown: Collection[Entry] = ()) -> None:
        """Makes the files amount to `entries` at `revision`. What is `unknown` stays in them as it is."""
        self._public.rewrite({entry: value for entry, value in entries.items() if entry[0] not in SECRET}, revision, unknown)
        if self._secret is not None:
            secret = {entry: value for entry, value in entries.items() if entry[0] in SECRET}
            self._secret.rewrite(secret, revision, unknown)

    def append(self, writes: Sequence[Write], revision: int) -> bool:
        """Adds a push that leads to `revision`. Whether the files can stay as they are; if not, `rewrite` them."""
        public, secret = _split(writes)
        whole = self._public.append(public, revision) if public else True
        if secret and self._secret is not None:
            whole = self._secret.append(secret, revision) and whole
        return whole

    def close(self) -> None:
        """Lets go of the files."""
        for one in self._all:
            one.close()


class Journal:
    """One file. A disk that takes no more costs the journal, not the push: it stays what it was, and is `due` from time to time. `owner`
    (uid, gid) is who may read it, if not everybody.
    """

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        self._path = path
        self._owner = owner
        self._file: FileIO | None = None
        self._size = 0
        self._limit = 0
        self._tries = Tries(_AGAIN)
        self._again = 0.0
        self.trouble: str | None = None

    @property
    def due(self) -> bool:
        """Whether it could not be written, and it is time to try again."""
        return self._file is None and time.monotonic() >= self._again

    def rewrite(self, entries: Mapping[Entry, str], revision: int, unknown: Collection[Entry] = ()) -> None:
        """Makes the journal amount to `entries` at `revision`, in as few lines as can be. What is `unknown` stays in it as it is."""
        self.close()
        try:
            known = {entry: value for entry, value in entries.items() if entry not in unknown}
            kept = _read(self._path, unknown) if unknown else {}
            writes = [Write(table, key, value) for (table, key), value in sorted((known | kept).items())]
            text = b"".join(line(chunk, revision) for chunk in chunks(writes))
            atomic_write(self._path, text, _PRIVATE if self._owner else _MODE, self._owner)
            self._file = FileIO(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), "ab")
        except OSError as error:
            return self._fail(error)
        self._size = len(text)
        self._limit = max(_SMALL, _GROWTH * len(text))
        if self.trouble is not None:
            log.info("journal.mended", path=str(self._path))
        self.trouble = None
        return self._tries.done()

    def append(self, writes: Sequence[Write], revision: int) -> bool:
        """Adds a push that leads to `revision`. Whether the journal can stay as it is; if not, `rewrite` it."""
        if self._file is None:
            return not self.due
        text = line(writes, revision)
        try:
            _write_whole(self._file, text)
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
        self._again = time.monotonic() + self._tries.delay()
        before, self.trouble = (
            self.trouble,
            (
                f"the journal {self._path} cannot be written: {error.strerror}; an nginx that restarts would have old routes until its "
                "renderer has compared them: make room there, or let us write there"
            ),
        )
        if before != self.trouble:
            log.error("journal.failed", reason=self.trouble)


def _write_whole(file: FileIO, text: bytes) -> None:
    """Raises OSError if not all of it was written, and none of it is there then: a nearly full disk takes a part, and only what is asked of
    it next is an error (write(2)).
    """
    before, rest = os.fstat(file.fileno()).st_size, memoryview(text)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(before)
        raise


def _split(writes: Sequence[Write]) -> tuple[list[Write], list[Write]]:
    """What everybody may know, and the rest."""
    return [one for one in writes if one.table not in SECRET], [one for one in writes if one.table in SECRET]


def line(writes: Sequence[Write], revision: int) -> bytes:
    """A push as a line of the journal. The hash guards against what is broken, not against who may write there."""
    text = to_bytes(json.dumps({"to": revision, "writes": as_lists(writes)}, ensure_ascii=False, separators=(",", ":")))
    return hashlib.md5(text, usedforsecurity=False).hexdigest().encode() + b" " + text + b"\n"


def _read(path: Path, entries: Container[Entry]) -> dict[Entry, str]:
    """What a journal has of some entries. Without a file that is nothing."""
    found: dict[Entry, str] = {}
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for write in (write for text in file for write in _writes(text) if (write.table, write.key) in entries):
            if write.value is None:
                found.pop((write.table, write.key), None)
            else:
                found[write.table, write.key] = write.value
    return found


def _writes(text: bytes) -> Iterator[Write]:
    """The push that a line is, or nothing: as nginx's program does, it leaves out what is not what its hash says."""
    hashed, _, push = text.rstrip(b"\n").partition(b" ")
    if hashlib.md5(push, usedforsecurity=False).hexdigest().encode() == hashed:
        yield from (Write(*one) for one in json.loads(push.decode(errors="surrogateescape"))["writes"])


def as_lists(writes: Sequence[Write]) -> list[list[Any]]:
    """Writes as nginx's program reads them."""
    return [[write.table, write.key, write.value] for write in writes]


def journals(state: Path, keys: Path | None) -> Journals:
    """The journals in the directory that is shared with nginx. Raises OSError if keys would be written to a disk."""
    if keys is None:
        return Journals(Journal(state / "journal"), None)
    if not in_memory(keys.parent):
        raise OSError(
            f"--vault {keys.parent} is on a disk, where keys must not be written; name a directory on a tmpfs, as /dev/shm is"
        )
    return Journals(Journal(state / "journal"), Journal(keys, owner_of(state / "run")))

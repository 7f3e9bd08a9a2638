"""What tests need and is slow to make: made once, kept in `~/.cache/seaway`.

    home = built("echo", directory, make)       `make(workshop)` makes what becomes `directory`, unless it is there already

A directory is named by the hash of what goes into it, so what is there is used as it is. Two builders do not meet (a lock), and a build
that was broken off leaves nothing that looks finished (a rename at the end). Meanwhile a line on standard error tells how far it is.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seaway"

_GIB = 2**30
_DEADLINE = 3600.0  # seconds; Kubernetes needs 7 minutes on two cores


class CannotBuild(Exception):
    """Why something could not be built, in a sentence that says what to do."""


def built(name: str, home: Path, make: Callable[[Path], Path], *, disk: int = 0) -> Path:
    """`home`, which `make` makes in a workshop beside it if it is missing: it returns what is to become `home`. The workshop goes away
    whatever happens. `disk` is how many bytes all of it takes. Raises CannotBuild.
    """
    if home.is_dir():
        return home
    with only_builder(home.parent):
        if not home.is_dir():
            _make(name, home, make, disk)
    return home


@contextmanager
def only_builder(directory: Path) -> Iterator[None]:
    """One builder at a time in a directory; the others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that builds into {directory}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(name: str, home: Path, make: Callable[[Path], Path], disk: int) -> None:
    workshop = home.parent / ".building"  # one name will do: there is only one builder
    shutil.rmtree(workshop, ignore_errors=True)  # of a builder that was killed
    free = shutil.disk_usage(home.parent).free
    if free < disk:
        raise CannotBuild(
            f"building {name} needs {disk / _GIB:g} GiB in {home.parent} and {free / _GIB:.1f} are free; "
            "free some, or set XDG_CACHE_HOME to a larger disk"
        )
    workshop.mkdir()
    try:
        make(workshop).rename(home)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


class Work:
    """The commands of one build, with a line on standard error that tells how far they are."""

    def __init__(self, name: str, workshop: Path, environment: Mapping[str, str], directory: Path | None = None) -> None:
        self._name = name
        self._environment = environment
        self._directory = directory or workshop
        self._log = workshop / "log"
        self._start = time.monotonic()

    def run(self, command: Sequence[str], doing: str, *, expected: int = 0) -> list[str]:
        """The lines that `command` wrote. Raises CannotBuild with the last of them if it failed."""
        with (
            self._log.open("w") as log,
            subprocess.Popen(command, cwd=self._directory, env=self._environment, stdout=log, stderr=log) as process,
        ):
            try:
                while not self._ended(process):
                    done = f", {len(self._lines())} of {expected} packages" if expected else ""
                    say(f"{self._name}: {doing}, {self.elapsed()}{done}", passing=True)
            except BaseException:
                process.kill()
                raise
        lines = self._lines()
        if process.returncode != 0:
            raise CannotBuild(f"{self._name} could not be built: {' '.join(command[:2])} said: " + " / ".join(lines[-5:]))
        return lines

    def elapsed(self) -> str:
        """The time since the build began, for people."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        return f"{minutes} min {seconds:02} s"

    def _ended(self, process: subprocess.Popen[bytes]) -> bool:
        if time.monotonic() - self._start > _DEADLINE:
            raise CannotBuild(f"{self._name} was not built within {_DEADLINE / 60:.0f} min; is where it comes from reachable?")
        try:
            process.wait(timeout=1 if sys.stderr.isatty() else 15)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()


def say(sentence: str, *, passing: bool = False) -> None:
    """One line for people. A passing one is overwritten by the next, on a terminal."""
    terminal = sys.stderr.isatty()
    sys.stderr.write(("\r\033[K" if terminal else "") + sentence + ("" if terminal and passing else "\n"))
    sys.stderr.flush()

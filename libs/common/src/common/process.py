"""Files and programs: write a file whole or not at all, ask a program whether it takes one, keep a program running.

    atomic_write(path, data)                 a reader sees the old bytes or the new ones, also after a power failure
    await validate(["nginx", "-t"], ...)     what a program that ends by itself says
    Child(...).run()                         starts a program, hears its lines, starts it again when it ends

A child stands in a process group of its own, so that a Ctrl-C at the terminal reaches only us and we end it in our order. Where util-linux
is there, the kernel ends it when we are killed (prctl(2), PR_SET_PDEATHSIG).
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import structlog

from common.backoff import Backoff

RESTARTS: Final = Backoff(first=0.05, most=5, factor=3, jitter=0.2)
_SETTLED: Final = 10.0  # seconds after which a program that ends is not one that cannot start
_KILLED: Final = 1  # the most that the wait grows to for a program that a signal ended
_LONGEST_LINE: Final = 16 * 1024
_LAST_WORDS: Final = 20
_CHUNK: Final = 64 * 1024
_LAST_LINES: Final = 0.2  # seconds for what a program that ended has said and nobody has read

log = structlog.get_logger(__name__)


def atomic_write(path: Path, data: bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Makes `path` hold `data`, with exactly `mode` and `owner` (uid, gid), or raises OSError with its name and leaves what was there."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(handle, mode)
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(handle, *owner)
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException as error:  # whatever ends this, a cancellation too, leaves no draft behind
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    _sync_directory(path.parent)


def in_memory(path: Path) -> bool:
    """Whether what is written to `path` stays in memory (proc_pid_mountinfo(5): mount point, then the type after a dash)."""
    mounts: dict[Path, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point, _, kind = line.partition(" - ")
        mounts[Path(point.split()[4].encode().decode("unicode_escape"))] = kind.split()[0]
    whole = path.absolute().resolve()
    return next((mounts[step] for step in (whole, *whole.parents) if step in mounts), "") in {"tmpfs", "ramfs"}


def _sync_directory(directory: Path) -> None:
    """The new name is in the directory, which has to reach the disk too (fsync(2))."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended: its exit code (negative: the signal), and what it said on both outputs."""

    code: int
    output: str


async def validate(
    command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None, told: bytes | None = None
) -> Outcome:
    """Runs a program to its end; it reads `told` on its input. Raises TimeoutError after `timeout` seconds (it is killed then), OSError if
    it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if told is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        process_group=0,
    )
    try:
        async with asyncio.timeout(timeout):
            output, _ = await process.communicate(told)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Outcome(process.returncode or 0, output.decode(errors="replace"))


class Child:
    """A program that is kept running, in the root directory: it may be another user's, who cannot enter ours.

    `prepare` is called before each start. `hear` gets each line that the program says; `words` are the last of them. `ended` is called
    when the program ended without being told to.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] = lambda: None,
        hear: Callable[[str], None] = lambda _: None,
        ended: Callable[["Child"], None] = lambda _: None,
        restarts: Backoff = RESTARTS,
    ) -> None:
        self.name = name
        self.starts = 0
        self.last_code: int | None = None
        self.words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._program = command[0]
        self._command = [*_ends_with_us(), *command]
        self._environment = environment
        self._prepare = prepare
        self._hear = hear
        self._ended = ended
        self._restarts = restarts
        self._process: asyncio.subprocess.Process | None = None
        self._ending = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Runs the program until `stop`. Raises OSError if it cannot be started at all."""
        attempt = 0
        try:
            while not self._ending.is_set():
                began = time.monotonic()
                self._prepare()
                await self._once()
                attempt = self._next_attempt(attempt, time.monotonic() - began)
                if not self._ending.is_set():
                    log.warning("child.ended", child=self.name, code=self.last_code, attempt=attempt)
                    self._ended(self)
                    await self._pause(self._restarts.delay(attempt, random.random()))  # noqa: S311 jitter
        finally:
            self._kill()

    def reload(self, number: signal.Signals = signal.SIGHUP) -> None:
        """Tells the program to read its configuration again."""
        self._signal(number)

    async def stop(self, grace: float, number: signal.Signals = signal.SIGTERM) -> bool:
        """Ends the program, by force after `grace` seconds. Whether it ended by itself."""
        self._ending.set()
        process = self._process
        if process is None or process.returncode is not None:
            return True
        self._signal(number)
        try:
            async with asyncio.timeout(grace):
                await process.wait()
        except TimeoutError:
            self._kill()
            await process.wait()
            return False
        return True

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _once(self) -> None:
        self._find()
        ours, theirs = os.pipe()
        with os.fdopen(ours, "rb", buffering=0) as output:
            try:
                # With a pipe of asyncio's own, `wait` would wait for all that hold it, the program's own children among them.
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=asyncio.subprocess.STDOUT,
                    env=self._environment,
                    cwd="/",
                    process_group=0,
                )
            finally:
                os.close(theirs)
            self._process = process
            self.starts += 1
            async with asyncio.TaskGroup() as group:
                relay = group.create_task(self._relay(output), name=f"{self.name}-output")
                self.last_code = await process.wait()
                await asyncio.wait({relay}, timeout=_LAST_LINES)
                relay.cancel()

    def _next_attempt(self, attempt: int, lived: float) -> int:
        """How long to wait before the next start, as an index of the back-off. Who was killed is not at fault, and comes back at once."""
        if lived > _SETTLED:
            return 0
        killed = self.last_code is not None and self.last_code < 0
        return min(attempt + 1, _KILLED) if killed else attempt + 1

    def _find(self) -> None:
        """Who starts the program for us would only say that it ended."""
        if shutil.which(self._program, path=(self._environment or os.environ).get("PATH")) is None:
            raise FileNotFoundError(f"there is no program {self._program}")

    async def _relay(self, output: IO[bytes]) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), output)
        try:
            await self._hear_all(stream)
        finally:
            transport.close()

    async def _hear_all(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stream.read(_CHUNK):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._heard(line)
            if len(rest) > _LONGEST_LINE:
                self._heard(rest)
                rest = b""
        if rest:
            self._heard(rest)

    def _heard(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode(errors="replace").rstrip()
        self.words.append(text)
        self._hear(text)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _kill(self) -> None:
        """Ends the program and what it started: the workers of a killed server would go on without it."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _ends_with_us() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []

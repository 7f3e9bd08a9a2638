"""keepalived: its configuration, tried before it is put in its place; its process, told to read it again, and run if nobody else does.

In a pod keepalived has a container of its own, and the two share a process namespace: the process is found by its pid file. Elsewhere it is
our child. Either can die and the other goes on, but a child ends with us.

It is started with real-time priority, where that is permitted: a master that cannot speak for three advertisements has a successor, and
to be nice helps nothing against programs of other sessions and control groups (sched(7), autogroup). keepalived could be told to take it
itself, but then the kernel kills it when a reload takes more than 10 ms.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

import structlog

from common.backoff import Backoff
from common.process import Child, atomic_write, validate

_DEADLINE: Final = 30.0
_RESTARTS: Final = Backoff(first=0.02, most=2, factor=3, jitter=0.2)
_RAW: Final = (Path("/proc/net/raw"), Path("/proc/net/raw6"))
_VRRP: Final = ":0070 "  # the protocol's number, 112, where other tables have the port
_LINES: Final = 3
_FIRST: Final = 'chrt --rr --pid 1 $$ 2>/dev/null; exec "$0" "$@"'

log = structlog.get_logger(__name__)


class Refused(Exception):
    """Why keepalived does not take a configuration, in its words."""


class Keepalived:
    """The keepalived of this machine. `run` is the directory of its configuration and its pid files."""

    def __init__(self, program: str, run: Path) -> None:
        self.configuration = run / "keepalived.conf"
        self._program = program
        self._pid_file = run / "keepalived.pid"
        self._vrrp_pid_file = run / "vrrp.pid"
        self._there = asyncio.Event()
        if self.configuration.is_file():
            self._there.set()
        words = ["-n", "-l", "-P", "-B", "-f", str(self.configuration), "-p", str(self._pid_file), "-r", str(self._vrrp_pid_file)]
        self.child = Child(
            "keepalived", ["sh", "-c", _FIRST, program, *words], prepare=self._prepare, hear=_heard, restarts=_RESTARTS
        )

    @property
    def text(self) -> str:
        """The configuration that is in its place; empty if there is none."""
        try:
            return self.configuration.read_text()
        except FileNotFoundError:
            return ""

    @property
    def pid(self) -> int | None:
        """The process, if it runs: our child, or else whoever the pid file names. Of a child it may be missing, as one that was left by a
        service that was killed takes the file away when it ends.
        """
        try:
            number = self.child.pid or int(self._pid_file.read_text())
            return number if Path(f"/proc/{number}/comm").read_text().strip() == "keepalived" else None
        except (OSError, ValueError):
            return None

    async def check(self, text: str) -> None:
        """Raises Refused for a text that keepalived would not take. Without this it may end when it is told to read the file."""
        trial = self.configuration.with_suffix(".trial")
        atomic_write(trial, text.encode(), 0o644)
        try:
            outcome = await validate([self._program, "-t", "-f", str(trial)], timeout=_DEADLINE)
        except TimeoutError as error:
            raise Refused(f"{self._program} -t did not answer within {_DEADLINE:g} seconds") from error
        except OSError as error:
            raise Refused(f"{self._program} -t cannot be asked: {error}") from error
        if outcome.code != 0:
            said = " ".join(line.strip() for line in outcome.output.strip().splitlines()[-_LINES:])
            raise Refused(f"{self._program} -t says: {said or f'exit code {outcome.code}'}")

    def install(self, text: str) -> None:
        """Puts a checked text in its place, and tells keepalived."""
        atomic_write(self.configuration, text.encode(), 0o644)
        self._there.set()
        number = self.pid
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGHUP)

    def alive(self) -> bool:
        """Whether our keepalived is there, and somebody speaks VRRP in this network namespace. Either alone says too little: the first may
        have lost its other process, which speaks, and another keepalived of the machine looks the same in the kernel's table.
        """
        if self.pid is None:
            return False
        for table in _RAW:
            with contextlib.suppress(OSError):
                if any(_VRRP in line for line in table.read_text().splitlines()):
                    return True
        return False

    async def keep(self) -> None:
        """Runs keepalived as our child, once there is a configuration, until `stop`."""
        await self._there.wait()
        await self.child.run()

    async def stop(self) -> None:
        """Ends the child; it gives its addresses up as it goes."""
        await self.child.stop(5)

    def _prepare(self) -> None:
        """Takes away the pid files of one that was killed: their numbers may be others' by now, and keepalived would not start."""
        for file in (self._pid_file, self._vrrp_pid_file):
            file.unlink(missing_ok=True)


def _heard(line: str) -> None:
    log.debug("keepalived.says", line=line)

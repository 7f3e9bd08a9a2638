"""A program that belongs to a test: it never outlives the test, not even when the test's process is killed."""

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path


class Child:
    """One program. The kernel kills it when this process dies (PR_SET_PDEATHSIG), whatever that dies of."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self._command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and did not end."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def check(self) -> None:
        """Raises RuntimeError with the end of its log if it is not running any more."""
        if not self.running:
            raise RuntimeError(f"{self.name} ended:\n{self.log[-2000:]}")

    async def start(self) -> None:
        """Starts the process and does not wait for it."""
        assert self._process is None, f"{self.name} is running already"
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal and does not wait. Nothing happens if the process ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """Ends the process at once, as a power failure would."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def ended(self) -> None:
        """Waits until the process is gone. It can then be started again."""
        if self._process is not None:
            await self._process.wait()
        self._process = None

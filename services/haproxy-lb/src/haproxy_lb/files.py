"""Files: what HAProxy reads when it starts, kept as it is now.

A HAProxy that was killed comes back with what is written here, also when nobody is there to tell it more. What it would not take is never
put in the place of what it did.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from common.process import atomic_write, validate
from haproxy_lb import render
from haproxy_lb.desire import Desired
from haproxy_lb.frame import Frame
from haproxy_lb.slots import Layout, Slot

_DEADLINE: Final = 60.0


class BadConfigurationError(Exception):
    """HAProxy does not take it; says why."""


class Files:
    """The configuration in `directory`, for the HAProxy that `program` is."""

    def __init__(self, directory: Path, frame: Frame, program: Sequence[str]) -> None:
        self.frame = frame
        self._directory = directory
        self._program = program
        self._written: Mapping[str, str] = {}

    async def good(self) -> bool:
        """Whether HAProxy would start with what is there."""
        written = self._directory / render.CONFIGURATION
        try:
            return written.is_file() and not await self._fault(self._directory)
        except BadConfigurationError:
            return False

    async def given(self) -> frozenset[Slot]:
        """The slots that have servers in what is there."""
        return render.given(await asyncio.to_thread((self._directory / render.CONFIGURATION).read_text))

    async def write(self, layout: Layout, desired: Desired) -> bool:
        """Puts all in its place if HAProxy takes it. Whether anything was different. Raises BadConfigurationError."""
        files = await asyncio.to_thread(render.files, self.frame, layout, desired)
        if self._written == files:
            return False
        with tempfile.TemporaryDirectory(prefix="seaway-haproxy-") as scratch:
            await asyncio.to_thread(_lay_out, Path(scratch), files, self.frame.tables)
            if fault := await self._fault(Path(scratch)):
                raise BadConfigurationError(fault.replace(scratch, "")[:2000])
        await asyncio.to_thread(self._put, files)
        self._written = files
        return True

    def _put(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            atomic_write(self._directory / name, text.encode(), 0o640)

    async def _fault(self, directory: Path) -> str:
        """What HAProxy says against the configuration in `directory`; nothing if it takes it. Raises BadConfigurationError."""
        try:
            outcome = await validate([*self._program, "-c", "-q", "-f", str(directory / render.CONFIGURATION)], timeout=_DEADLINE)
        except (OSError, TimeoutError) as error:
            raise BadConfigurationError(f"{self._program[0]} cannot say whether a configuration is good: {error}") from error
        return (outcome.output.strip() or f"it ended with {outcome.code}") if outcome.code else ""


def _lay_out(scratch: Path, files: Mapping[str, str], tables: str) -> None:
    """The same configuration, with its tables in `scratch`."""
    for name, text in files.items():
        (scratch / name).write_text(text.replace(f"{tables}/", f"{scratch}/") if name == render.CONFIGURATION else text)

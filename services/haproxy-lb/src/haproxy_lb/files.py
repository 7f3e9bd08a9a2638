"""Files: what HAProxy reads when it starts, kept as it is now.

A HAProxy that was killed comes back with what is written here, also when nobody is there to tell it more. What it would not take is never
put in the place of what it did.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from common.process import atomic_write, validate
from haproxy_lb import render
from haproxy_lb.desire import Desired
from haproxy_lb.frame import Frame
from haproxy_lb.rules import TABLES
from haproxy_lb.slots import Layout

_DEADLINE: Final = 60.0


class BadConfigurationError(Exception):
    """HAProxy does not take it; says why."""


class Files:
    """The configuration in `directory`, for the HAProxy that `program` is."""

    def __init__(self, directory: Path, frame: Frame, program: Sequence[str]) -> None:
        self.frame = frame
        self._directory = directory
        self._program = program
        self._written: tuple[str, Mapping[str, str]] | None = None

    async def good(self) -> bool:
        """Whether HAProxy would start with what is there."""
        written = self._directory / "haproxy.cfg"
        try:
            return written.is_file() and not await self._fault(self._directory)
        except BadConfigurationError:
            return False

    async def write(self, layout: Layout, desired: Desired) -> bool:
        """Puts all in its place if HAProxy takes it. Whether anything was different. Raises BadConfigurationError."""
        text = await asyncio.to_thread(render.configuration, self.frame, layout, desired)
        tables = {name: render.table(desired.tables[name]) for name in TABLES}
        if self._written == (text, tables):
            return False
        await self._try(layout, desired, tables)
        for name, content in tables.items():
            atomic_write(self._directory / f"{name}.map", content.encode(), 0o640)
        atomic_write(self._directory / "haproxy.cfg", text.encode(), 0o640)
        self._written = (text, tables)
        return True

    async def _try(self, layout: Layout, desired: Desired, tables: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="seaway-haproxy-") as name:
            scratch = Path(name)
            await asyncio.to_thread(self._lay_out, scratch, layout, desired, tables)
            if fault := await self._fault(scratch):
                raise BadConfigurationError(fault.replace(name, "")[:2000])

    def _lay_out(self, scratch: Path, layout: Layout, desired: Desired, tables: Mapping[str, str]) -> None:
        for name, content in tables.items():
            (scratch / f"{name}.map").write_text(content)
        text = render.configuration(replace(self.frame, tables=str(scratch)), layout, desired)
        (scratch / "haproxy.cfg").write_text(text)

    async def _fault(self, directory: Path) -> str:
        """What HAProxy says against the configuration in `directory`; nothing if it takes it. Raises BadConfigurationError."""
        try:
            outcome = await validate([*self._program, "-c", "-q", "-f", str(directory / "haproxy.cfg")], timeout=_DEADLINE)
        except (OSError, TimeoutError) as error:
            raise BadConfigurationError(f"{self._program[0]} cannot say whether a configuration is good: {error}") from error
        return (outcome.output.strip() or f"it ended with {outcome.code}") if outcome.code else ""

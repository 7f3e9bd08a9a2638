"""Master: HAProxy's first process, which starts the ones that serve, and starts others beside them when it is told to reload."""

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Final

from haproxy_lb.runtime import Lost

_FAILED: Final = re.compile(rb"\[failed: (\d+)\]")


async def reload(path: Path, deadline: float = 30.0) -> None:
    """Has HAProxy begin again with the configuration on disk. Raises Lost if its master does not take that, or says that it failed."""
    said = ""
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"reload\n")
                with contextlib.suppress(ConnectionResetError):
                    said = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except TimeoutError as error:
        raise Lost(f"HAProxy's master does not answer on {path} within {deadline:g} s") from error
    except OSError as error:
        raise Lost(f"HAProxy's master is not there on {path}: {error}") from error
    # Newer ones say how it went, older ones close the connection at once (management.txt §9.4).
    if "Success=0" in said:
        alerts = [line.partition(" : ")[2] for line in said.splitlines() if "[ALERT]" in line]
        raise Lost(" ".join(alerts)[:500] or "its own log says why")


async def failed(path: Path, deadline: float = 1.0) -> bool:
    """Whether the master says that its last reload came to nothing; it does not answer while it loads (management.txt §9.4)."""
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"show proc\n")
                said = _FAILED.search(await reader.readuntil(b"]"))
            finally:
                writer.close()
    except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
        return False
    return said is not None and int(said[1]) > 0

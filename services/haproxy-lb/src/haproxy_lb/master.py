"""Master: HAProxy's first process, which starts the ones that serve, and starts others beside them when it is told to reload."""

import asyncio
from pathlib import Path

from haproxy_lb.runtime import Lost


async def reload(path: Path, deadline: float = 30.0) -> None:
    """Has HAProxy begin again with the configuration on disk. Raises Lost if its master does not take that."""
    try:
        async with asyncio.timeout(deadline):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"reload\n")
                said = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except TimeoutError as error:
        raise Lost(f"HAProxy's master does not answer on {path} within {deadline:g} s") from error
    except OSError as error:
        raise Lost(f"HAProxy's master is not there on {path}: {error}") from error
    # Newer ones say how it went, older ones close the connection at once (management.txt §9.4).
    if "Success=0" in said:
        raise Lost(f"HAProxy refuses its configuration: {said.partition('--')[2].strip()[:500]}")

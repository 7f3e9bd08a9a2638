"""HAProxy's runtime API as we hold it: its end is heard at once, whether anything is being asked or not."""

import asyncio
import contextlib
from pathlib import Path

from common.testing import wait_until
from haproxy_lb.runtime import Runtime

_SOON = 2.0  # well below the time between two looks
_INFO = "Pid: 7\nVersion: 3.0.11\nStopping: 0\ndescription: here\n"


async def test_a_haproxy_that_ends_while_nothing_is_asked_is_noticed_at_once(tmp_path: Path) -> None:
    talking: list[asyncio.StreamWriter] = []
    gone = asyncio.Event()

    async def haproxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.append(writer)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(((_INFO if line == b"show info\n" else "") + "\n> ").encode())

    path = tmp_path / "admin.sock"
    async with await asyncio.start_unix_server(haproxy, str(path)):
        runtime = Runtime(path, "/tables")
        runtime.gone = gone.set
        assert (await runtime.process()).pid == 7
        assert not gone.is_set()
        talking[0].write_eof()  # as the kernel does for one that was killed
        await wait_until(gone.is_set, within=_SOON)
        runtime.close()
        talking[0].close()

"""Network namespaces for tests, and sockets in them.

A socket belongs to the namespace in which it was made, whoever uses it. So servers and clients run in the test's own event loop, and only
their sockets are made elsewhere, by a thread that entered the namespace.
"""

import asyncio
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NEWNET: Final = 0x40000000  # CLONE_NEWNET, setns(2)


class Namespace:
    """The network namespace of this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.enter = ("ip", "netns", "exec", name)
        self._thread = ThreadPoolExecutor(1, initializer=self._go)

    def _go(self) -> None:
        with Path("/run/netns", self.name).open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {self.name}")

    async def socket(self, family: int) -> socket.socket:
        """A TCP socket in it."""
        made = await asyncio.get_running_loop().run_in_executor(self._thread, socket.socket, family)
        made.setblocking(False)  # noqa: FBT003
        return made

    def ip(self, *lines: str) -> None:
        """Changes what is in it, by lines of the program ip."""
        subprocess.run(["ip", "-netns", self.name, "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=30)

    def close(self) -> None:
        """Ends the thread; the namespace stays."""
        self._thread.shutdown()


@contextmanager
def namespaces(*names: str) -> Iterator[Sequence[Namespace]]:
    """Namespaces that are new, and gone afterwards with all that is in them."""
    made: list[Namespace] = []
    try:
        for name in names:
            full = f"swlb{os.getpid()}{name}"
            subprocess.run(["ip", "netns", "add", full], check=True, timeout=30)
            made.append(Namespace(full))
            made[-1].ip("link set lo up")
        yield made
    finally:
        for one in made:
            one.close()
            subprocess.run(["ip", "netns", "delete", one.name], check=False, timeout=30)

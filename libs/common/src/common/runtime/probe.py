"""Asks the service in the same container whether it is well, for runtimes that cannot ask over HTTP themselves.

    python -m common.runtime.probe [readyz|livez]

The address is the service's own knob (SEAWAY_PROBES). Exit code 0 for "well"; else the failing checks are told, and the code is 1.
"""

import http.client
import os
import socket
import sys
from collections.abc import Sequence
from typing import Final

_TIMEOUT: Final = 3.0  # seconds


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)


def ask(address: str, probe: str) -> str | None:
    """None if the service at `address` (HOST:PORT or unix:PATH) is well, else what is wrong."""
    connection = _connection(address)
    try:
        connection.request("GET", f"/{probe}")
        response = connection.getresponse()
        text = response.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"nobody answers at {address}: {error}"
    else:
        return None if response.status == 200 else text
    finally:
        connection.close()


def _connection(address: str) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    # A service that listens everywhere is asked where nothing can be in between.
    return http.client.HTTPConnection("127.0.0.1" if host in {"0.0.0.0", "[::]"} else host.strip("[]"), int(port), timeout=_TIMEOUT)  # noqa: S104


def main(arguments: Sequence[str]) -> int:
    """Asks, and says what is wrong."""
    probe = arguments[0] if arguments else "readyz"
    address = os.environ.get("SEAWAY_PROBES")
    problem = ask(address, probe) if address else "SEAWAY_PROBES is not set, so nobody knows where to ask"
    if problem is not None:
        print(problem, file=sys.stderr)
    return 0 if problem is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

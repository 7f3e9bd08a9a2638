"""Ports for servers of tests."""

import random
import socket
from contextlib import closing

# Outside of the range from which the kernel takes ports for outgoing connections: a client that knocks at the port of a killed server
# could otherwise be given that very port, and talk to itself.
_PORTS = range(15000, 30000)


def free_port(address: str = "127.0.0.1") -> int:
    """A port of `address` that nobody listens on."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 any port will do
        with closing(socket.socket()) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port

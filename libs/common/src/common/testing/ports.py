"""Ports for servers of tests."""

import random
import socket
from collections import deque
from contextlib import closing

# Outside of the range from which the kernel takes ports for outgoing connections: a client that knocks at the port of a killed server
# could otherwise be given that very port, and talk to itself.
_PORTS = range(15000, 30000)
_given: deque[int] = deque(maxlen=1000)


def free_port(address: str = "127.0.0.1") -> int:
    """A port of `address` that nobody listens on, and that nobody was given lately, who may be about to."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311 any port will do
        if port in _given:
            continue
        with closing(socket.socket()) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
        _given.append(port)
        return port

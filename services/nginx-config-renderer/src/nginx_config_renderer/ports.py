"""Ports: which ports of this machine other programs have, and which listeners nginx had last.

An nginx that cannot have one port takes no new configuration at all, and does not even start. So a port that somebody else has is found out
before nginx is asked, from what the kernel tells everybody (proc_net_tcp(5)).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Final

from nginx_config_renderer.entering import listeners_of
from nginx_config_renderer.streams import TCP, Listener

_LISTENS: Final = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; and TCP_CLOSE, which is a UDP socket without a peer
_ADDRESS, _STATE = 1, 3


def taken(protocol: str) -> frozenset[int]:
    """The ports at which somebody listens, on any address."""
    name = "tcp" if protocol == TCP else "udp"
    return frozenset(port for table in (name, f"{name}6") for port in _ports(Path("/proc/net") / table, _LISTENS[name]))


def _ports(table: Path, state: str) -> Iterator[int]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:  # a kernel without IPv6
        return
    for fields in map(str.split, lines):
        if fields[_STATE] == state:
            yield int(fields[_ADDRESS].rpartition(":")[2], 16)


def load(kept: Path) -> tuple[Listener, ...]:
    """The listeners that were in force last."""
    try:
        return listeners_of(json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError, AttributeError):
        return ()


def dumped(listeners: Sequence[Listener]) -> bytes:
    """The same as they are kept for a renderer that starts while the bus is away."""
    return json.dumps([astuple(one) for one in listeners]).encode()

"""The kernel's addresses, kept up to date by rtnetlink(7): what it tells is applied, and now and then all is asked for again.

A kernel that had to leave something out says so (ENOBUFS), and everything is asked for again then.
"""

import asyncio
import errno
import os
import socket
from typing import Final, Self

import structlog

from keepalived_vip.rtnetlink import ADDRESS_GROUPS, Answered, Place, Told, ask, delete, read

_BUFFER: Final = 1 << 20
_DATAGRAM: Final = 1 << 17
_AGAIN: Final = 30.0  # seconds between two questions for everything
_TOO_MANY: Final = 4

log = structlog.get_logger(__name__)


class Kernel:
    """The addresses of this network namespace. `changed` is set with each change."""

    def __init__(self, namespace_socket: socket.socket | None = None) -> None:
        self.places: frozenset[Place] = frozenset()
        self.known = False
        self.changed = asyncio.Event()
        self._socket = namespace_socket or opened()
        self._sequence = 0
        self._dump: set[Place] | None = None
        self._dump_sequence = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def run(self) -> None:
        """Listens until cancelled."""
        loop = asyncio.get_running_loop()
        asked = 0.0
        while True:
            now = loop.time()
            if self._dump is None and (now - asked >= _AGAIN or not self.known):
                self._ask()
                asked = now
            try:
                async with asyncio.timeout(max(0.05, asked + _AGAIN - now)):
                    data = await loop.sock_recv(self._socket, _DATAGRAM)
            except TimeoutError:
                self._dump = None
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.known, self._dump = False, None
                continue
            self._take(data)

    def remove(self, place: Place) -> None:
        """Asks the kernel to take an address off its interface. Whether it does is seen in `places`."""
        self._send(delete(place, self._next()))

    def _ask(self) -> None:
        self._dump, self._dump_sequence = set(), self._next()
        self._send(ask(self._dump_sequence))

    def _send(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except BlockingIOError:
            log.warning("kernel.busy")

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _take(self, data: bytes) -> None:
        places = set(self.places)
        for one in read(data):
            if isinstance(one, Answered):
                self._answered(one)
                places = set(self.places) if one.sequence == self._dump_sequence else places
            elif one.sequence == self._dump_sequence and self._dump is not None:
                self._dump.add(one.place)
            else:
                self._apply(places, one)
        self._become(frozenset(places))

    def _apply(self, places: set[Place], told: Told) -> None:
        for held in (places, self._dump if self._dump is not None else set()):
            (held.add if told.here else held.discard)(told.place)

    def _answered(self, answer: Answered) -> None:
        if answer.sequence == self._dump_sequence and self._dump is not None:
            found, self._dump = self._dump, None
            self.known = answer.code == 0
            if self.known:
                self._become(frozenset(found))
        elif answer.code not in {0, errno.EADDRNOTAVAIL}:
            log.warning("kernel.refused", reason=os.strerror(answer.code))

    def _become(self, places: frozenset[Place]) -> None:
        if places != self.places:
            self.places = places
            self.changed.set()


def opened() -> socket.socket:
    """A socket of the namespace that the calling thread is in."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    made.setblocking(False)  # noqa: FBT003
    made.bind((0, ADDRESS_GROUPS))
    return made

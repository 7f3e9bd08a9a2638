"""Records: reservations as the text of a ConfigMap, one a line, for people too.

    192.0.2.1  shop/web  -       in-use
    192.0.2.2  shop/old  key     2026-01-02T03:04:05Z      since when it is released

A line that cannot be read is told and left out: the status of its Service says the same, so what is lost is a quarantine at most.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final

from common.contracts.ip import read_address
from haproxy_lb.book import Reservation
from haproxy_lb.claims import ServiceName

_IN_USE: Final = "in-use"
_NO_KEY: Final = "-"
_SHOWN: Final = 80  # characters of a bad line


def write(reservations: Iterable[Reservation]) -> str:
    """The text that says `reservations`."""
    return "".join(
        f"{one.address} {one.service} {one.sharing or _NO_KEY} {_time(one.released)}\n"
        for one in sorted(reservations, key=lambda one: one.order)
    )


def read(text: str) -> tuple[tuple[Reservation, ...], tuple[str, ...]]:
    """The reservations that `text` says, and what is wrong with the lines that say none."""
    found: dict[tuple[object, ServiceName], Reservation] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            one = _read(line)
        except ValueError:
            faults.append(f"line {number} is {line[:_SHOWN]!r}, and not: address namespace/name key time")
            continue
        found.setdefault((one.address, one.service), one)
    return tuple(sorted(found.values(), key=lambda one: one.order)), tuple(faults)


def _read(line: str) -> Reservation:
    address, service, sharing, released = line.split()
    namespace, slash, name = service.partition("/")
    if not (namespace and slash and name):
        raise ValueError("no Service")
    since = 0 if released == _IN_USE else int(dt.datetime.fromisoformat(released).timestamp())
    return Reservation(read_address(address), ServiceName(namespace, name), "" if sharing == _NO_KEY else sharing, since)


def _time(released: int) -> str:
    return dt.datetime.fromtimestamp(released, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if released else _IN_USE

"""Desire: from a wish to what HAProxy, and the kernel before it, should hold.

A connection finds its Service by where it arrived. Its entry in the table of fronts says all that HAProxy must know of the Service before
it takes the connection: `slot|service|marks|rate|most|name`. `service` is a short digest that is the same on every node, so that
stickiness survives a move to another one; a mark `P` says that some networks begin with the PROXY protocol, `S` that only some may ask,
`R` and `M` that a rate and a number of connections are limited. The name is for people. An IPv6 front says its address and port too
(`6`).

Most fronts are plain: none of this is asked of them, and which slot they have is all that HAProxy needs. The kernel sends those of IPv4 to
the slot's door (`doors`). For those that come to the hall, a table of its own says it, and the rules of the others are passed over.

In the hall HAProxy asks the kernel where an IPv4 connection was meant to go. It does not ask that for IPv6 (it knows SO_ORIGINAL_DST
alone), so there the kernel gives each front an address of its own, inside a network that only this machine knows.

A network is a prefix of an address written in hexadecimal digits, `where/4/0A01` for 10.1.0.0/16, and up to eight of them where the
network's length is no multiple of four. HAProxy finds prefixes of strings in a tree, whatever the Service, so one table holds all.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final

from common.contracts.ip import read_address, read_network
from haproxy_lb.doors import HALL, door
from haproxy_lb.model import DEFAULT_TREATMENT, Backend, BackendKey, Endpoint, Frontend, FrontKey, Treatment, Wanted
from haproxy_lb.rules import FRONTS, PATHS, PLAIN, PROXIES, SOURCES, TABLES, Table
from haproxy_lb.slots import Slot, path_of

_NUMBERS: Final = 2**20 - 1
_SERVICE: Final = 12  # hexadecimal digits
_SEND: Final = {"v1": "send-proxy", "v2": "send-proxy-v2"}
_NAME: Final = re.compile(r"[a-z0-9.-]{1,253}/[a-z0-9.-]{1,253}:\d{1,5}")


@dataclass(frozen=True, slots=True)
class Spec:
    """A server that should be. Its name says all that cannot be changed while it lives, so a change is another server."""

    name: str
    address: str
    port: int
    options: tuple[str, ...]
    checked: bool
    draining: bool = False

    @property
    def number(self) -> int:
        """The number that it should have, if that is free. The same on each node, since hashing goes by it.

        HAProxy takes 4096 places a server on a ring of 2^32, so numbers that are equal in their lower 20 bits would take the same places
        (src/lb_chash.c).
        """
        return 1 + int.from_bytes(hashlib.sha256(f"{self.address} {self.port}".encode()).digest()[:4]) % _NUMBERS

    def number_beside(self, taken: AbstractSet[int]) -> int:
        """The number, or the next one that is free."""
        number = self.number
        while number in taken:
            number = number % _NUMBERS + 1
        return number

    @property
    def where(self) -> str:
        """Its address and port, as HAProxy reads them."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Desired:
    """What should be held: by HAProxy its tables and the servers of its slots, by the kernel where each front leads."""

    tables: Mapping[str, Table]
    slots: Mapping[Slot, Mapping[str, Spec]]
    kernel: Mapping[FrontKey, str]  # the address, known to this machine alone, where HAProxy takes its connections
    doors: bool = True  # whether that HAProxy has any


@dataclass(frozen=True, slots=True)
class _Front:
    """What a front is made of, and what was made of it."""

    of: tuple[Frontend, Slot, Treatment]
    inside: str
    arrives: str
    value: str
    plain: bool
    sources: tuple[tuple[str, str], ...]


class Desires:
    """The way from a wish to a `Desired`. What has not changed since the last one is not made again."""

    def __init__(self, inside: IPv6Network, port: int) -> None:
        self._inside = inside
        self._port = port
        self._fronts: dict[FrontKey, _Front] = {}
        self._servers: dict[BackendKey, tuple[Backend, Mapping[str, Spec]]] = {}

    def of(self, wanted: Wanted, slots: Mapping[BackendKey, Slot], *, doors: bool = True) -> Desired:
        """What should be held for the part of `wanted` that has slots, by a HAProxy that has doors or not."""
        tables: dict[str, Table] = {name: {} for name in TABLES}
        self._fronts = {
            key: self._front(front, slots[front.backend], wanted.backends[front.backend].treatment)
            for key, front in wanted.frontends.items()
            if front.backend in slots and front.backend in wanted.backends and address(key.address) == key.address
        }
        tables[FRONTS] = {front.arrives: front.value for front in self._fronts.values()}
        tables[PLAIN] = {front.arrives: front.of[1] for front in self._fronts.values() if front.plain}
        tables[SOURCES] = {key: network for front in self._fronts.values() for key, network in front.sources}
        for whose, slot in slots.items():
            treatment = wanted.backends[whose].treatment
            if treatment is DEFAULT_TREATMENT:
                continue
            tables[PROXIES].update(_prefixes(service_of(whose), treatment.accept_proxy))
            if path := path_of(treatment.check):
                tables[PATHS][slot] = path
        self._servers = {key: self._servers_of(wanted.backends[key]) for key in slots}
        kernel = {key: _leads(front, doors=doors) for key, front in self._fronts.items()}
        return Desired(tables, {slot: self._servers[key][1] for key, slot in slots.items()}, kernel, doors)

    def _front(self, front: Frontend, slot: Slot, treatment: Treatment) -> _Front:
        known, key = self._fronts.get(front.key), front.key
        if known is not None and known.of == (front, slot, treatment):
            return known
        inside = self._address_inside(key)
        arrives = f"{inside}:{self._port}" if inside else f"{key.address}:{key.port}"
        value, sources = _value(front, slot, treatment), tuple(_prefixes(arrives, front.sources))
        return _Front((front, slot, treatment), inside, arrives, value, _is_plain(front, treatment), sources)

    def _servers_of(self, backend: Backend) -> tuple[Backend, Mapping[str, Spec]]:
        known = self._servers.get(backend.key)
        return known if known is not None and known[0] == backend else (backend, servers(backend))

    def _address_inside(self, key: FrontKey) -> str:
        if ":" not in key.address:
            return ""
        digest = hashlib.sha256(str(key).encode()).digest()[:8]
        return str(IPv6Address(int(self._inside.network_address) + int.from_bytes(digest)))


def _leads(front: _Front, *, doors: bool) -> str:
    return front.inside or (doors and front.plain and door(front.of[1])) or HALL


@lru_cache(maxsize=65536)
def address(text: str) -> str:
    """The address as HAProxy writes it; nothing if it is none."""
    try:
        return str(read_address(text))
    except ValueError:
        return ""


def service_of(key: BackendKey) -> str:
    """The short digest that stands for a port of a Service."""
    return hashlib.sha256(str(key).encode()).hexdigest()[:_SERVICE]


def _rules(front: Frontend, treatment: Treatment) -> str:
    """The marks of what is asked before a connection is taken."""
    asked = {
        "P": bool(treatment.accept_proxy),
        "S": bool(front.sources),
        "R": treatment.rate > 0,
        "M": treatment.max_connections > 0,
    }
    return "".join(mark for mark, applies in asked.items() if applies)


def _is_plain(front: Frontend, treatment: Treatment) -> bool:
    """Whether the slot is all that HAProxy needs: affinity goes by the service, and an endpoint may be told where an IPv6 client went."""
    told = ":" in front.key.address and treatment.send_proxy in _SEND
    return not (_rules(front, treatment) or treatment.affinity > 0 or told)


def _value(front: Frontend, slot: Slot, treatment: Treatment) -> str:
    marks = ("6" if ":" in front.key.address else "") + _rules(front, treatment)
    name = str(front.backend) if _NAME.fullmatch(str(front.backend)) else "-"
    limits = (max(0, treatment.rate), max(0, treatment.max_connections))
    at = [front.key.address, str(front.key.port)] if ":" in front.key.address else []
    return "|".join([slot, service_of(front.backend), marks or "none", *map(str, limits), name, *at])


def held_by(table: Table) -> dict[str, Slot]:
    """Which slot each service has, as the table of fronts says it."""
    found: dict[str, Slot] = {}
    for _, value in sorted(table.items()):
        slot, service = owned(value)
        found.setdefault(service, slot)
    return found


def owned(value: str) -> tuple[Slot, str]:
    """Which slot is whose, as an entry of the table of fronts says it."""
    slot, service, *_ = [*value.split("|", 2), ""]
    return Slot(slot), service


def servers(backend: Backend) -> dict[str, Spec]:
    """The servers of a backend by their names. What is no address, or no port, is none."""
    treatment, check = backend.treatment, backend.treatment.check
    found: dict[str, Spec] = {}
    for endpoint in sorted(backend.endpoints, key=lambda one: (one.draining, one.backup, one)):
        where = address(endpoint.address)
        if not where or not 1 <= endpoint.port <= 65535:
            continue
        options = tuple(_options(endpoint, treatment))
        digest = hashlib.sha256(" ".join(options).encode()).hexdigest()[:6]
        spec = Spec(f"{where}:{endpoint.port}_{digest}", where, endpoint.port, options, check.enabled, endpoint.draining)
        found.setdefault(spec.name, spec)
    return found


def _options(endpoint: Endpoint, treatment: Treatment) -> Iterator[str]:
    check = treatment.check
    if check.enabled:
        yield f"check inter {max(100, round(1000 * check.interval))} rise {max(1, check.rise)} fall {max(1, check.fall)}"
    if treatment.send_proxy in _SEND:
        yield _SEND[treatment.send_proxy]
        if check.enabled:
            yield "check-send-proxy"
    if endpoint.backup:
        yield "backup"


def _prefixes(whose: str, networks: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The entries by which a source of these networks is found. A text that is no network lets nobody in."""
    for text in networks:
        try:
            network = read_network(text)
        except ValueError:
            continue
        for digits in hexadecimal(network):
            yield f"{whose}/{network.version}/{digits}", str(network)


def hexadecimal(network: IPv4Network | IPv6Network) -> list[str]:
    """The prefixes, in hexadecimal digits, that the addresses of `network` have and no others."""
    length = -(-network.prefixlen // 4)
    first = int(network.network_address) >> (network.max_prefixlen - 4 * length)
    return [f"{first + step:0{length}X}" if length else "" for step in range(1 << (4 * length - network.prefixlen))]

"""Streams: what the edge carries without opening it, beside HTTP.

A *listener* is a port that the operator opens for a Service (TCP or UDP), with the PROXY protocol in or out. The set of listeners is all
that nginx.conf knows of streams: protocols, numbers and booleans, never a text of anybody. Where the connections go is data in small files,
one a port and one a host that is passed through by its name (SNI); nginx's program reads one of them for each connection, so a changed
endpoint is in force with the next connection, without a reload.

    ports/TCP-9000      ["10.0.0.1:5432", "[fd00::1]:5432"]
    hosts/shop.example  ["10.0.0.1:8443"]                     connections to that name are passed on unopened
    hosts/a.example     false                                 they are ours, although a wildcard above is passed on
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from common.contracts.objects import ConfigMap
from common.contracts.refs import ObjectRef
from nginx_config_renderer.model import Endpoint

TCP: Final = "TCP"
UDP: Final = "UDP"
PROTOCOLS: Final = (TCP, UDP)


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A port of the edge. `proxy_in`: connections begin with the PROXY protocol; `proxy_out`: so do ours to the endpoints."""

    protocol: str
    port: int
    proxy_in: bool = False
    proxy_out: bool = False

    def __str__(self) -> str:
        return f"{self.protocol} port {self.port}"


@dataclass(frozen=True, slots=True, order=True)
class EntryKey:
    """A key of a ConfigMap, as a port of one protocol."""

    protocol: str
    namespace: str
    name: str
    key: str

    @property
    def ref(self) -> ObjectRef:
        """The ConfigMap."""
        return ObjectRef(ConfigMap.resource, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class Stream:
    """A listener and where its connections go. No endpoints: they are closed."""

    listener: Listener
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """Where the connections to a name go, unopened; None if they are ours to open, although a wildcard above is passed on. `waits`: for
    somebody to look up where that is.
    """

    endpoints: tuple[Endpoint, ...] | None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Entrances:
    """What the operator lets in: the ConfigMaps of ports, the ports that can be nobody's since they are ours, and whether hosts may be
    passed through.
    """

    tcp: ObjectRef | None = None
    udp: ObjectRef | None = None
    reserved: frozenset[int] = frozenset()
    passthrough: bool = False

    @property
    def refs(self) -> tuple[ObjectRef, ...]:
        """The ConfigMaps."""
        return tuple(sorted({ref for ref in (self.tcp, self.udp) if ref is not None}))

    def of(self, protocol: str) -> ObjectRef | None:
        """The ConfigMap with the ports of `protocol`."""
        return self.udp if protocol == UDP else self.tcp


def port_file(key: EntryKey) -> str:
    """The file of a port. The program makes this name too, of what nginx calls $protocol and $server_port."""
    return f"ports/{key.protocol}-{key.key}"


def host_file(host: str) -> str:
    """The file of a host, which was checked to be one."""
    return f"hosts/{host}"


def endpoints_text(endpoints: Sequence[Endpoint] | None) -> str:
    """What such a file holds."""
    if endpoints is None:
        return "false"
    return json.dumps([f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}" for one in endpoints])

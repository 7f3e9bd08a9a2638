"""Frame: what of HAProxy's configuration is settled when it starts. A change of any of it is a reload."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from types import MappingProxyType

from haproxy_lb.model import Peer
from haproxy_lb.slots import Kind, Layout

INSIDE = IPv6Network("fd5e:a3a4:77e1:6c62::/64")  # random (RFC 4193)
_SLOTS = MappingProxyType({Kind(): 512, Kind(http=True): 64, Kind("leastconn"): 64, Kind("source"): 64, Kind(affinity=10800): 64})


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """After `idle` seconds of silence the other side is asked, `count` times every `interval` seconds, whether it is still there."""

    idle: float = 60.0
    interval: float = 15.0
    count: int = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """`run` is the directory of the sockets, `tables` where the maps lie; both as HAProxy sees them. Times in seconds."""

    run: str
    tables: str
    port: int = 14480
    ipv6: bool = True
    inside: IPv6Network = INSIDE  # of IPv6 fronts; only this machine knows it
    threads: int = 0  # 0: as HAProxy chooses
    max_connections: int = 0  # of all Services; 0: as many as files may be open
    client_timeout: float = 300.0  # until an endpoint has taken the connection
    keepalive: KeepAlive = KeepAlive()
    check_timeout: float = 2.0
    retries: int = 3
    hard_stop_after: float = 1800.0  # how long a HAProxy that was replaced may finish what it has begun
    affinity_clients: int = 200_000  # remembered for each time of affinity
    name: str = "here"  # among the peers
    peer_port: int = 14481
    peer_address: str = "127.0.0.1"
    peers: tuple[Peer, ...] = ()
    slots: Layout = field(default_factory=lambda: _SLOTS)

    def among(self, peers: Collection[Peer]) -> "Frame":
        """The same with these peers, if the own HAProxy is one of them and not alone."""
        own = next((peer for peer in peers if peer.name == self.name), None)
        others = tuple(sorted(peer for peer in peers if peer.name != self.name))
        if own is None or not others:
            return self
        return replace(self, peers=others, peer_address=own.address, peer_port=own.port)

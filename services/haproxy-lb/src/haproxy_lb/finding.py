"""What HAProxy's checks found, as the bus is told it: the endpoints that are unwell. Of a node's many, most are well. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from common.contracts.balancers import BalancerFound, UnwellEndpoint
from haproxy_lb.model import BackendKey
from haproxy_lb.rules import Admin, Server
from haproxy_lb.slots import Slot

MOST: Final = 200  # endpoints that are listed: a message has a bound


def found(node: str, slots: Mapping[BackendKey, Slot], servers: Iterable[tuple[Slot, str, Server]], trouble: str) -> BalancerFound:
    """What the balancer of `node` finds. A new server is unwell once its first checks have failed, though nobody was sent to it yet."""
    keys = {slot: key for key, slot in slots.items()}
    unwell = {
        (keys[slot], name.rpartition("_")[0] or name)
        for slot, name, server in servers
        if slot in keys and server.admin is not Admin.MAINT and not server.up
    }
    listed = [
        UnwellEndpoint(namespace=key.namespace, service=key.service, port=key.port, endpoint=endpoint)
        for key, endpoint in sorted(unwell)
    ]
    return BalancerFound(node=node, trouble=trouble, unwell=tuple(listed[:MOST]), more=max(0, len(listed) - MOST))

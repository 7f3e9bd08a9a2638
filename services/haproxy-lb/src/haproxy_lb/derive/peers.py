"""Peers: the nodes whose HAProxy share which client stays with which endpoint, so that affinity outlives a node.

Which nodes have one is what the operator says by a label, as a DaemonSet's nodeSelector does. Everybody tells everybody, so there are not
more than a few: the first by their names.
"""

from collections.abc import Iterable
from typing import Final

from common.contracts.ip import read_address
from common.contracts.objects import Node
from haproxy_lb.model import Peer

MOST: Final = 16
EVERY: Final = "*"
_INTERNAL: Final = "InternalIP"


def peers(nodes: Iterable[Node], label: str, port: int) -> tuple[Peer, ...]:
    """Those of `nodes` that have `label`: a key, or a key and a value with `=` between them, or `*` for all. None if it is empty."""
    key, named, value = label.partition("=")
    found = []
    for node in nodes if label else ():
        labels = node.metadata.labels
        internal = [one.address for one in node.status.addresses if one.type == _INTERNAL and _is_address(one.address)]
        if internal and (label == EVERY or (key in labels and (not named or labels[key] == value))):
            found.append(Peer(node.metadata.name, internal[0], port))
    return tuple(sorted(found)[:MOST])


def _is_address(text: str) -> bool:
    try:
        read_address(text)
    except ValueError:
        return False
    return True

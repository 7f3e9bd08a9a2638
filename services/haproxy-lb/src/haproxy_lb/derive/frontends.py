"""Frontends: which Service answers at an address and a port.

The truth is the status of Services, which the leader of all balancers has written: so each of them serves the same, and serves what users
are shown. It is checked again here, since whoever can write a status, or on the bus, could name any address: it must be of a pool, and of
two Services that show the same port of an address the older one has it.
"""

from collections.abc import Callable

from common.contracts.ip import read_address
from common.contracts.objects import Service
from common.contracts.problems import Problem
from common.store import Derived, Reads
from haproxy_lb.annotations import wishes
from haproxy_lb.derive.classes import Class, belongs
from haproxy_lb.derive.in_force import in_force
from haproxy_lb.derive.indexes import BY_FRONT
from haproxy_lb.model import BackendKey, Frontend, FrontKey
from haproxy_lb.values import canonical

SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"  # of old, and in force where the field is empty


def frontends(ours: Class) -> Callable[[Reads, FrontKey], Derived[Frontend]]:
    """The derivation for one class of Services."""

    def derive(view: Reads, key: FrontKey) -> Derived[Frontend]:
        pools = in_force(view)
        if pools is None or pools.of(read_address(key.address)) is None:
            return Derived(None)
        users = [one for one in view.by(BY_FRONT, key) if belongs(ours, one) and not wishes(one).kernel]
        if not users:
            return Derived(None)
        owner = min(users, key=lambda one: (one.metadata.creation_timestamp, one.metadata.namespace, one.metadata.name))
        backend = BackendKey(owner.metadata.namespace, owner.metadata.name, key.port)
        field, texts = _ranges(owner)
        try:
            return Derived(Frontend(key, backend, canonical(texts)))
        except ValueError as mend:  # to let everybody in would be the worst reading of a bad network
            problem = Problem(owner.ref, "BadSourceRanges", f"{field} is {','.join(texts)[:80]!r}; {mend}")
            return Derived(None, (problem,))

    return derive


def _ranges(service: Service) -> tuple[str, list[str]]:
    """Where the networks that may ask are written, and what is written there; none is all."""
    listed = service.spec.load_balancer_source_ranges
    annotated = service.metadata.annotations.get(SOURCE_RANGES, "").strip()
    if listed or not annotated:
        return "spec.loadBalancerSourceRanges", [*listed]
    return f"annotation {SOURCE_RANGES}", annotated.split(",")

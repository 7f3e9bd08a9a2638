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
        try:
            return Derived(Frontend(key, backend, _sources(owner)))
        except ValueError as mend:
            text = f"spec.loadBalancerSourceRanges is {', '.join(owner.spec.load_balancer_source_ranges)[:80]!r}; {mend}"
            return Derived(None, (Problem(owner.ref, "BadSourceRanges", text),))

    return derive


def _sources(service: Service) -> tuple[str, ...]:
    """The networks that may ask; none is all. Raises ValueError: to let everybody in would be the worst reading of a bad network."""
    annotated = service.metadata.annotations.get(SOURCE_RANGES, "").strip()
    texts = [*service.spec.load_balancer_source_ranges] or (annotated.split(",") if annotated else [])
    return canonical(texts)

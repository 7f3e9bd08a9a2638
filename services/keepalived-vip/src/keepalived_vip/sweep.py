"""Addresses that are left on a node which should not hold them.

A node holds an address rightly if keepalived runs and is master of the instance that has it, which it shows by that instance's anchor
on the loopback interface. What is ours and is not held rightly for a while is stale: keepalived was killed, or lost its way. Ours is
what was in a plan, with the prefix length that we write, on the interface on which keepalived holds addresses; whatever else a machine has
is none of our business. kube-proxy in its IPVS mode has the addresses of Services that are left to it on an interface of its own, on every
node.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from keepalived_vip.model import Address, Instance, Layout
from keepalived_vip.render import anchor
from keepalived_vip.rtnetlink import Place

_WHOLE = {4: 32, 6: 128}
_LOOPBACK = 1  # of each network namespace (LOOPBACK_IFINDEX in the kernel's net/flow.h)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a node has and should have. `interface` is the index of the one with the addresses, None if nobody knows it. `alive`: keepalived
    runs. `ours` are addresses that were ever in a layout of this node.
    """

    places: Collection[Place]
    interface: int | None
    layout: Layout
    alive: bool
    ours: Collection[Address]

    @property
    def whole(self) -> Iterable[Place]:
        """The places of addresses without a network."""
        return (place for place in self.places if place.prefix == _WHOLE[place.address.version])

    @property
    def masters(self) -> frozenset[str]:
        """The names of the instances whose anchor is here."""
        here = {place.address for place in self.places if place.interface == _LOOPBACK}
        return frozenset(instance.name for instance in self.layout.instances if anchor(instance) in here)

    @property
    def held(self) -> Mapping[Address, Instance]:
        """The addresses of the layout that are here, with their instances."""
        here = {place.address for place in self.whole if place.interface == self.interface}
        return {address: instance for instance in self.layout.instances for address in instance.addresses if address in here}


def stale(scene: Scene) -> frozenset[Place]:
    """What should not be here now. It is removed by whoever finds it so for some time: at any single moment it may be on its way."""
    masters = scene.masters if scene.alive else frozenset()
    rightful = {address for instance in scene.layout.instances if instance.name in masters for address in instance.addresses}
    anchors = {anchor(instance): instance.name for instance in scene.layout.instances}
    return frozenset(
        place
        for place in scene.whole
        if (place.interface == _LOOPBACK and place.address in anchors and anchors[place.address] not in masters)
        or (place.interface == scene.interface and place.address in scene.ours and place.address not in rightful)
    )


def missing(scene: Scene) -> tuple[Address, ...]:
    """Addresses of instances that are master here, which the interface has not: somebody took them away behind keepalived's back."""
    masters = scene.masters if scene.alive else frozenset()
    held = scene.held
    return tuple(_absent(scene.layout.instances, masters, held))


def _absent(instances: Iterable[Instance], masters: Collection[str], held: Mapping[Address, Instance]) -> Iterable[Address]:
    for instance in instances:
        if instance.name in masters:
            yield from (address for address in instance.addresses if address not in held)

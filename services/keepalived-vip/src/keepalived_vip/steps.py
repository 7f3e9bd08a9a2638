"""From the configuration that runs to the one that is wanted, in reloads that lose no address.

What keepalived does to the addresses of a master at a reload was measured, and is `reloaded`: an instance that is gone gives up all it had;
then, in the order of the *old* file, each instance gives up what it has no more and takes what it has now. So an address that moves to an
instance further down is taken after it was given up, and is away for a tenth of a millisecond. One that moves up is taken first, which
changes nothing as it is there, and then given up: nobody has it, and keepalived believes that the upper one does (keepalived(8): "two
reloads will be necessary"). Therefore the moves up wait for a second reload, and the first one turns the file upside down, which makes them
moves down. To list an address twice meanwhile would help nothing: whichever instance gives it up first takes it from the interface.
"""

from collections.abc import Mapping
from dataclasses import replace

from keepalived_vip.model import Address, Instance, Layout


def steps(running: Layout, wanted: Layout) -> tuple[Layout, ...]:
    """The configurations to go through, the last one being `wanted`; none if it runs already."""
    if running == wanted:
        return ()
    place = {instance.name: index for index, instance in enumerate(running.instances)}
    before, after = running.holders, wanted.holders
    stays = {instance.name for instance in wanted.instances}
    up = {
        address: source
        for address, source in before.items()
        if (there := after.get(address)) is not None and source in stays and place.get(there, len(place)) < place[source]
    }
    return (_delayed(wanted, place, up), wanted) if up else (wanted,)


def _delayed(wanted: Layout, place: Mapping[str, int], up: Mapping[Address, str]) -> Layout:
    """`wanted` with the running file upside down, in which what moves up is still where it was."""
    turned = sorted(wanted.instances, key=lambda instance: -place.get(instance.name, -1))
    return Layout(tuple(_with(instance, up) for instance in turned))


def _with(instance: Instance, up: Mapping[Address, str]) -> Instance:
    addresses = {address for address in instance.addresses if address not in up}
    addresses |= {address for address, source in up.items() if source == instance.name}
    return replace(instance, addresses=tuple(sorted(addresses, key=int)))


def reloaded(held: Mapping[Address, str], running: Layout, new: Layout) -> Mapping[Address, str]:
    """What a node that is master of every instance has after a reload, and by which instance it was taken last."""
    now = dict(held)
    wanted = {instance.name: set(instance.addresses) for instance in new.instances}
    for instance in running.instances:
        if instance.name not in wanted:
            for address in instance.addresses:
                now.pop(address, None)
    for instance in running.instances:
        had, has = set(instance.addresses), wanted.get(instance.name, set())
        if instance.name in wanted:
            for address in had - has:
                now.pop(address, None)
            now |= dict.fromkeys(has - had, instance.name)
    return now

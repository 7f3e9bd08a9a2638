"""Plan: from what HAProxy holds to what it should hold, as commands in their order.

The order matters, because a connection may come between any two commands: a server is ready before a front leads to its slot, and a
network may ask before a front asks for that; what goes, goes the other way. A new server begins without connections while it is checked,
and gets them when a check has passed (docs: a server that is made ready is taken for up until a check fails). But where none of the
servers that should be is up, waiting would only leave the Service without an answer, so then all of them are made ready at once.

The door of a slot that a Service gives up is cleared when the kernel lets nobody begin there any more, and only then does the table of
fronts forget whose the slot was. So a slot that is nobody's there is clean, and `allot` gives no other one away.

A front that is not plain any more stops being so as soon as its rules are there. Tables that HAProxy does not know, since it began with an
older configuration, wait for the reload that makes them known.

A server that should go gets no new connection, keeps those it has, and is deleted when they have ended. That is not known beforehand: the
command is given again from time to time (`Leaving`), and after a deadline the connections are ended.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from haproxy_lb.desire import Desired, Spec, owned
from haproxy_lb.doors import door
from haproxy_lb.rules import (
    FRONTS,
    PATHS,
    PLAIN,
    PROXIES,
    SOURCES,
    AddServer,
    Admin,
    Command,
    Drop,
    EnableHealth,
    Held,
    Listen,
    Put,
    Server,
    ServerCommand,
    SetState,
    Table,
)
from haproxy_lb.slots import Slot

_ORDER: Final = (PATHS, PROXIES, SOURCES, FRONTS, PLAIN)  # what a front needs is there before it, and goes after it


@dataclass(frozen=True, slots=True)
class Plan:
    """`first` before the kernel is told where fronts are, `last` after it. In `waiting` slots servers are not proven yet. `leaving`
    servers get no connections; those of them that are `gone` are to be deleted.
    """

    first: tuple[Command, ...]
    last: tuple[Command, ...]
    waiting: frozenset[Slot]
    leaving: frozenset[tuple[Slot, str]]
    gone: frozenset[tuple[Slot, str]]


def plan(held: Held, desired: Desired, slots: Iterable[Slot] | None = None) -> Plan:
    """What must be done for the tables and for `slots` (all of them if not given)."""
    chosen = sorted(held.slots.keys() if slots is None else held.slots.keys() & set(slots))
    first: list[Command] = []
    last: list[Command] = []
    waiting: set[Slot] = set()
    leaving: set[tuple[Slot, str]] = set()
    gone: set[tuple[Slot, str]] = set()
    for slot in chosen:
        servers, specs = held.slots[slot], desired.slots.get(slot, {})
        if not servers and not specs:
            continue
        first += _come(slot, servers, specs)
        last += _go(slot, servers, specs)
        if any(_unproven(servers, spec) for spec in specs.values()):
            waiting.add(slot)
        leaving |= {(slot, name) for name in servers if name not in specs or specs[name].draining}
        gone |= {(slot, name) for name in servers.keys() - specs.keys()}
    known = [table for table in _ORDER if table in held.tables]
    for table in known:
        first += _put(table, held.tables[table], desired.tables[table])
    ruled = _ruled(held, desired)
    first += ruled
    last += _clear(held, desired)
    for table in reversed(known):
        drops = (Drop(table, key) for key in sorted(held.tables[table].keys() - desired.tables[table].keys()))
        last += (drop for drop in drops if drop not in ruled)
    return Plan(tuple(first), tuple(last), frozenset(waiting), frozenset(leaving), frozenset(gone))


def _clear(held: Held, desired: Desired) -> Iterator[Listen]:
    """What ends all that is on its way to the doors of slots that are given up."""
    before, after = held.tables.get(FRONTS, {}), desired.tables[FRONTS]
    changed = {owned(value) for key, value in before.items() if after.get(key) != value}
    given_up = changed - set(map(owned, after.values())) if changed else ()
    for slot in sorted({slot for slot, _ in given_up if desired.doors and door(slot)}):
        yield from (Listen(slot, on=False), Listen(slot, on=True))


def _come(slot: Slot, servers: Mapping[str, Server], specs: Mapping[str, Spec]) -> Iterator[ServerCommand]:
    """What gives `slot` the servers that it should have."""
    serving = {name: spec for name, spec in specs.items() if not spec.draining}
    alone = not any(name in servers and servers[name].admin is Admin.READY and servers[name].up for name in serving)
    numbers = {server.number for server in servers.values()}
    for name, spec in serving.items():
        server = servers.get(name)
        if server is None:
            number = spec.number_beside(numbers)
            numbers.add(number)
            yield AddServer(slot, name, number, spec.where, spec.options)
        yield from _lift(slot, name, spec, server, alone=alone)


def _lift(slot: Slot, name: str, spec: Spec, server: Server | None, *, alone: bool) -> Iterator[ServerCommand]:
    """What brings a server that should serve one step nearer to that."""
    if spec.checked and (server is None or not server.checking):
        yield EnableHealth(slot, name)
    admin = Admin.MAINT if server is None else server.admin
    good = alone or not spec.checked or (server is not None and admin is Admin.DRAIN and server.proven)
    target = Admin.READY if good or admin is Admin.READY else Admin.DRAIN
    if admin is not target:
        yield SetState(slot, name, target)


def _unproven(servers: Mapping[str, Server], spec: Spec) -> bool:
    """Whether a server is looked at until a check of it has passed."""
    server = servers.get(spec.name)
    return not spec.draining and spec.checked and (server is None or server.admin is not Admin.READY)


def _go(slot: Slot, servers: Mapping[str, Server], specs: Mapping[str, Spec]) -> Iterator[ServerCommand]:
    """What keeps new connections from servers that should go. Those that stick would still come to one that drains."""
    for name, server in servers.items():
        if (name not in specs or specs[name].draining) and server.admin is not Admin.MAINT:
            yield SetState(slot, name, Admin.MAINT)


def _ruled(held: Held, desired: Desired) -> list[Drop]:
    """What makes the rules of fronts that were plain hold."""
    no_longer = held.tables.get(PLAIN, {}).keys() - desired.tables[PLAIN].keys()
    return [Drop(PLAIN, key) for key in sorted(no_longer & desired.tables[FRONTS].keys())]


def _put(table: str, held: Table, desired: Table) -> Iterator[Put]:
    for key, value in desired.items():
        if held.get(key) != value:
            yield Put(table, key, value, new=key not in held)

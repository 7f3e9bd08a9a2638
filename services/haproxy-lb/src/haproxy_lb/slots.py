"""Slots: HAProxy's backends, made before anybody needs them.

HAProxy cannot make a backend while it runs (configuration.txt §4.1), but it can give one servers and send connections to it. So its
configuration has a number of empty backends, the slots, and a port of a Service is allotted one. What only the configuration can say is
the slot's kind; whatever else there is to a Service is data. A slot is named by its kind and a number, and the name says all of the kind,
so that what a running HAProxy has can be read from its names alone.

A port keeps its slot for as long as its kind stays. A slot that has servers is taken, even if its Service is gone: connections may still
be on them. So is one that has some in HAProxy's files, with which HAProxy may start. Where slots become few the layout grows, which is a
reload; it does so before they are used up.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NewType

from haproxy_lb.model import BackendKey, Check, Treatment

Slot = NewType("Slot", str)

BALANCES: Final = ("leastconn", "roundrobin", "source")
LONGEST_AFFINITY: Final = 86400  # seconds, as the API server has it (ClientIPConfig)
_LONGEST: Final = 2**31 - 1  # milliseconds; HAProxy's longest time
_NAME: Final = re.compile(r"(leastconn|roundrobin|source)(?:\.a(\d{1,5}))?(\.http)?(?:\.t(\d{1,10})\.(\d{1,10}))?")
_PATH: Final = re.compile(r"/[A-Za-z0-9/_.~%?&=+:@,-]{0,255}")  # nothing that means something to HAProxy's command line
_USUAL: Final = (5_000, 3_600_000)


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """What of a treatment stands in the configuration. Times in milliseconds, but for the affinity's seconds."""

    balance: str = "roundrobin"
    affinity: int = 0
    http: bool = False
    connect: int = _USUAL[0]
    idle: int = _USUAL[1]

    def __str__(self) -> str:
        times = (self.connect, self.idle)
        parts = [
            self.balance,
            f".a{self.affinity}" if self.affinity else "",
            ".http" if self.http else "",
            "" if times == _USUAL else ".t{}.{}".format(*times),
        ]
        return "".join(parts)

    def slot(self, number: int) -> Slot:
        """The slot of that number."""
        return Slot(f"{self}-{number}")


Layout = Mapping[Kind, int]  # how many slots there are of each kind


@lru_cache(maxsize=4096)
def kind_of(treatment: Treatment) -> Kind:
    """The kind of slot that a treatment needs. Values out of bounds are brought within: they were judged where they were read."""
    times = treatment.timeouts
    return Kind(
        treatment.balance if treatment.balance in BALANCES else "roundrobin",
        max(0, min(LONGEST_AFFINITY, treatment.affinity)),
        bool(path_of(treatment.check)),
        *(max(1, min(_LONGEST, round(1000 * seconds))) for seconds in (times.connect, times.idle)),
    )


def path_of(check: Check) -> str:
    """The path of checks by HTTP; nothing if it is none that can be asked for, or there are no checks by HTTP."""
    return check.http_path if check.enabled and _PATH.fullmatch(check.http_path) else ""


@lru_cache(maxsize=16384)
def parse(name: str) -> tuple[Kind, int] | None:
    """The kind and the number that a slot's name says; None if it is no slot."""
    text, _, number = name.rpartition("-")
    found = _NAME.fullmatch(text)
    if found is None or not number.isascii() or not number.isdigit():
        return None
    balance, affinity, http, *times = found.groups()
    kind = Kind(balance, int(affinity or 0), bool(http), *(map(int, times) if times[0] else _USUAL))
    return (kind, int(number)) if kind.slot(int(number)) == name else None


def layout_of(names: Iterable[str]) -> dict[Kind, int]:
    """The layout of a HAProxy that has backends of these names."""
    found: dict[Kind, int] = {}
    for kind, number in filter(None, map(parse, names)):
        found[kind] = max(found.get(kind, 0), number + 1)
    return found


@dataclass(frozen=True, slots=True)
class Allotment:
    """Who has which slot, and how many slots each kind needs in all; who got none has to wait for a layout that has more."""

    slots: Mapping[BackendKey, Slot]
    needed: Layout


def allot(wanted: Mapping[BackendKey, Kind], held: Mapping[BackendKey, Slot], taken: Iterable[Slot], layout: Layout) -> Allotment:
    """Gives each port a slot. `held` is what they have now, `taken` are the slots that nobody else may be given yet."""
    slots: dict[BackendKey, Slot] = {}
    given: set[Slot] = set()
    for key in sorted(wanted):
        slot = held.get(key)
        found = parse(slot) if slot is not None else None
        if (
            slot is not None
            and found is not None
            and found[0] == wanted[key]
            and found[1] < layout.get(wanted[key], 0)
            and slot not in given
        ):
            slots[key] = slot
            given.add(slot)
    barred = given | set(taken) | set(held.values())
    needed = _count(barred)
    free = {kind: _free(kind, count, barred) for kind, count in layout.items()}
    for key in sorted(wanted.keys() - slots.keys()):
        kind = wanted[key]
        needed[kind] = needed.get(kind, 0) + 1
        slot = next(free.get(kind, iter(())), None)
        if slot is not None:
            slots[key] = slot
    return Allotment(slots, needed)


def _free(kind: Kind, count: int, barred: AbstractSet[Slot]) -> Iterator[Slot]:
    return (slot for slot in map(kind.slot, range(count)) if slot not in barred)


def _count(slots: Iterable[Slot]) -> dict[Kind, int]:
    counts: dict[Kind, int] = {}
    for kind, _ in filter(None, map(parse, slots)):
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def fitting(base: Layout, running: Layout, needed: Layout) -> dict[Kind, int]:
    """The layout to have: the running one, unless that has too few. Then kinds that nobody needs are left out."""
    least = {kind: max(base.get(kind, 0), _room(needed.get(kind, 0))) for kind in base.keys() | needed.keys()}
    fits = all(running.get(kind, 0) >= (base.get(kind, 0) if kind in base else 1) for kind in least)
    enough = all(running.get(kind, 0) >= count + count // 8 for kind, count in needed.items())
    if fits and enough:
        return dict(running)
    return {kind: max(count, running.get(kind, 0)) for kind, count in least.items()}


def _room(needed: int) -> int:
    """Room for as many again, as a power of two, so that growth is rare."""
    return 1 << max(2, (needed + needed // 2).bit_length()) if needed else 0

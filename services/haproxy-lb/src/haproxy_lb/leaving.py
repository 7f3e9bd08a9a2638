"""Leaving: servers that get no new connections any more, until those that they have are over.

HAProxy does not delete a server that somebody is connected to, so it is asked from time to time, less and less often. It is first asked
after a while: HAProxy 2.6.12 can use a server that it has just been told to forget (it lacks several fixes of that). Who is connected
after the deadline is cut off. An endpoint that is terminating, and still there, is cut off too but not deleted before it is gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from common.backoff import Backoff
from haproxy_lb.rules import DeleteServer, EndSessions
from haproxy_lb.slots import Slot

Who = tuple[Slot, str]
TRIES: Final = Backoff(first=0.25, most=10.0, factor=1.5, jitter=0.2)


@dataclass(frozen=True, slots=True)
class _Case:
    deadline: float
    at: float
    gone: bool
    tries: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A server that is to be deleted now, after its connections were cut off if their time is over."""

    slot: Slot
    name: str
    cut: bool
    delete: bool

    @property
    def commands(self) -> list[EndSessions | DeleteServer]:
        """What HAProxy is told."""
        cut: list[EndSessions | DeleteServer] = [EndSessions(self.slot, self.name)] if self.cut else []
        return [*cut, DeleteServer(self.slot, self.name)] if self.delete else cut


class Leaving:
    """Who leaves. `linger` and `deadline` in seconds, from when a server got its last new connection; `now` is any clock's."""

    def __init__(self, linger: float = 5.0, deadline: float = 3600.0) -> None:
        self._linger = linger
        self._deadline = deadline
        self._cases: dict[Who, _Case] = {}

    def __len__(self) -> int:
        return len(self._cases)

    @property
    def soonest(self) -> float:
        """When somebody is next to be asked; far away if nobody leaves."""
        return min((case.at for case in self._cases.values()), default=float("inf"))

    def note(self, slots: Iterable[Slot], leaving: Iterable[Who], gone: Iterable[Who], now: float) -> None:
        """Of the servers of `slots` these leave and no others; `gone` are those of them that should be deleted."""
        chosen, staying = set(slots), set(leaving)
        deleted = set(gone)
        for who in [who for who in self._cases if who[0] in chosen and who not in staying]:
            del self._cases[who]
        for who in staying:
            known = self._cases.get(who)
            if known is None:
                known = _Case(now + self._deadline, now + (self._linger if who in deleted else self._deadline), who in deleted)
            elif who in deleted and not known.gone:
                known = replace(known, gone=True, at=now + self._linger)
            self._cases[who] = known

    def due(self, now: float) -> list["Asked"]:
        """Whom HAProxy should be asked about now."""
        return [
            Asked(slot, name, cut=now >= case.deadline and not case.cut, delete=case.gone)
            for (slot, name), case in sorted(self._cases.items())
            if case.at <= now
        ]

    def asked(self, who: Who, now: float, chance: float, *, deleted: bool) -> None:
        """HAProxy was asked for what was due for `who`, and has deleted it or not."""
        case = self._cases.get(who)
        if deleted or case is None:
            self._cases.pop(who, None)
            return
        cut = case.cut or now >= case.deadline
        at = now + TRIES.delay(case.tries, chance) if case.gone else float("inf")
        self._cases[who] = replace(case, tries=case.tries + 1, at=at if cut else min(at, case.deadline), cut=cut)

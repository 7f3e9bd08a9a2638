"""Entering: the tables of streams, and what follows from them: the files that nginx's program reads, and the listeners of nginx.conf."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from common.contracts.problems import Problem
from common.store import Change, Store, Table
from nginx_config_renderer.derive.classes import Class
from nginx_config_renderer.derive.indexes import BY_ENTRY, BY_HOST, BY_PASSED_HOST
from nginx_config_renderer.derive.passthrough import passages
from nginx_config_renderer.derive.services import services
from nginx_config_renderer.streams import Entrances, Listener, endpoints_text, host_file, port_file


@dataclass(frozen=True, slots=True)
class Entered:
    """What some changes did: files that are different now, and whether problems and listeners are."""

    files: frozenset[str] = frozenset()
    problems: bool = False
    listeners: bool = False


class Entering:
    """The tables of what the operator lets in, over one store."""

    def __init__(self, store: Store, ours: Class, entrances: Entrances) -> None:
        self._services = Table(store, BY_ENTRY, services(entrances))
        # Which hosts are ours is of interest below wildcards alone; where nothing is passed through, only who asks for it is.
        domain = BY_HOST if entrances.passthrough else BY_PASSED_HOST
        self._passages = Table(store, domain, passages(ours, enabled=entrances.passthrough))
        self._files: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._listeners: tuple[Listener, ...] = ()
        self._refused: tuple[Problem, ...] = ()

    @property
    def files(self) -> Mapping[str, str]:
        """The files and what they hold."""
        return MappingProxyType(self._files)

    @property
    def unknown(self) -> Collection[str]:
        """Those of them of which nobody knows yet what they should hold: what stands there is better than nothing."""
        return self._unknown

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The ports that are asked for, sorted."""
        return self._listeners

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with any object."""
        return self._services.problems + self._passages.problems + self._refused

    def refuse(self, reasons: Mapping[Listener, str]) -> bool:
        """Takes which listeners cannot be, and why. Whether that is news."""
        before = self._refused
        asked = self._services.values.items()
        self._refused = tuple(
            Problem(key.ref, "PortRefused", f"key {key.key!r}: {reasons[stream.listener]}")
            for key, stream in sorted(asked, key=lambda item: item[0])
            if stream.listener in reasons
        )
        return self._refused != before

    def update(self, changes: Sequence[Change]) -> Entered:
        """Derives again what `changes` touch."""
        streams, passed = self._services.update(changes), self._passages.update(changes)
        before = self._listeners
        if streams.values:
            self._listeners = tuple(sorted(stream.listener for stream in self._services.values.values()))
        new = {
            port_file(key): None if stream is None else endpoints_text(stream.endpoints) for key, stream in streams.values.items()
        }
        for host, passage in passed.values.items():
            new[host_file(host)] = None if passage is None else endpoints_text(passage.endpoints)
            self._unknown.discard(host_file(host))
            if passage is not None and passage.waits:
                self._unknown.add(host_file(host))
        for name, text in new.items():
            if text is None:
                self._files.pop(name, None)
            else:
                self._files[name] = text
        return Entered(frozenset(new), streams.problems or passed.problems, self._listeners != before)


def listeners_of(data: Iterable[object]) -> tuple[Listener, ...]:
    """Listeners, as they were written as lists. Raises ValueError, TypeError for what is none."""
    found = (Listener(*one) for one in data if isinstance(one, list))
    return tuple(sorted(one for one in found if one.protocol in {"TCP", "UDP"} and type(one.port) is int and 0 < one.port <= 65535))
